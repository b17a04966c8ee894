"""A tree that was there before the ledger: taking it over, making a lost ledger anew, and comparing the two."""
