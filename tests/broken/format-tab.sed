s/^    int total;/	int total;/
