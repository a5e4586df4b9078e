s|^    counts\.|    counts, see /home/someone/notes.|
