"""What a host's page reclaim would do, and how long it would take.

Pure: no file, clock, environment or terminal.  ``states`` and ``truth`` hold
the tables, ``leaves`` and ``machine`` the emulated TDX module, ``memory`` its
pages, ``plan`` and ``host`` the kernel that drives it, ``cost`` and
``calibration`` the time, ``simulate`` all of it together, ``scenarios`` the
sentences that can be run.

Importing this package imports none of them.
"""
