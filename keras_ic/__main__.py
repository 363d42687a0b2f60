"""`python -m keras_ic`."""

from keras_ic.program import program

if __name__ == "__main__":
    program()
