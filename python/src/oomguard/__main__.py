"""`python -m oomguard run …`: the launcher."""

from ._launcher import execute

if __name__ == "__main__":
    execute()
