s|^    int total;|&                                                                            // a very long comment, longer than anyone would like to read|
