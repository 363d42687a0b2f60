"""`python -m keras_ic`."""

import sys

from keras_ic.cli import main

if __name__ == "__main__":
    sys.exit(main())
