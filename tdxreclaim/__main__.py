"""The entry point: ``tdxreclaim`` and ``python -m tdxreclaim``."""

import gc
import sys

# Collecting garbage while modules load finds none and costs a twelfth of the
# start-up.  A command that works for long turns it on again.
gc.disable()

from tdxreclaim.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
