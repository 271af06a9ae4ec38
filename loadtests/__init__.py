"""Apart. Black-box measurements and acceptance targets: speaks HTTP only, imports no floor."""
