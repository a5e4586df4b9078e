s/^IDEAS/Tour/
s/^TOUR/IDEAS/
s/^Tour/TOUR/
