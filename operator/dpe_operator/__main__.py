"""`python -m dpe_operator`."""

import os
import signal
import sys

# the first process of a container has no default for SIGTERM: one that is deleted while it still imports would sit out
# its grace. kopf installs its own handler
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

from dpe_operator.main import main  # noqa: E402

sys.exit(main())
