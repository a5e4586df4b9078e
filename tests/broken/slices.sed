# A static function that nothing calls once the slice is cut off.
/^\/\/ ---- @os/,/^\/\/ ---- @api/{
/NETKIT_SAMPLE_NO_CLOCK/d
}
