s/^    int total;/& /
