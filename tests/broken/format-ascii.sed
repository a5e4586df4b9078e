s/largest sum/größte Summe/
