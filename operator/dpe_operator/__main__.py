"""`python -m dpe_operator`."""

import sys

from dpe_operator.main import main

sys.exit(main())
