"""What must survive: paths, atomic files, the ledger, the quarantine."""
