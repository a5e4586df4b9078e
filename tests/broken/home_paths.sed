# In two steps, for this file is looked at too.
s|^    counts\.|    counts, see /home:someone/notes.|
s|home:|home/|
