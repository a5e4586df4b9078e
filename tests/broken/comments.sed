/^\/\/ The sum of both/d
