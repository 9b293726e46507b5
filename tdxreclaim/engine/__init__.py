"""The emulated machine: a TDX module, its pages, and the kernel that drives them.

Pure: no file, clock, environment or terminal; it knows no host and no command
line.  From left to right, each importing only from its left:

``states``, ``truth``
    the states, and what an access does to a line
``leaves``, ``pages``, ``module``
    the emulated TDX module and its pages
``plan``, ``shape``, ``build``, ``recorder``, ``teardown``, ``reuse``, ``faults``
    the kernel that drives it, and what goes wrong
``script``, ``scenarios``
    sentences that can be run

Importing this package imports none of them.
"""
