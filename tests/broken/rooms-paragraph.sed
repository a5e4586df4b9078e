/^\/\/ Everything is visible here/d
