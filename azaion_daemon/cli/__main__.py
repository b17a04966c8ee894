"""`python -m azaion_daemon.cli`."""

from azaion_daemon.cli import main

if __name__ == "__main__":
    main()
