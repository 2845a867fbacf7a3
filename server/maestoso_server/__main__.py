"""`python -m maestoso_server`: the same as the command `maestoso`."""

import sys

from ._main import main

sys.exit(main())
