"""What a host's page reclaim would do, and how long it would take.

Pure: no file, clock, environment or terminal.  From left to right, each
importing only from its left:

``states``, ``truth``
    the states, and what an access does to a line
``leaves``, ``memory``, ``machine``
    the emulated TDX module and its pages
``plan``, ``shape``, ``trace``, ``host``, ``reuse``, ``inject``
    the kernel that drives it, and what goes wrong
``calibration``, ``cost``
    the time, in closed form
``simulate``, ``script``, ``scenarios``
    all of it together

Importing this package imports none of them.
"""
