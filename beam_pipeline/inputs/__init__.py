"""What commands read: addresses, rule files, archives, and whether they can be reached."""
