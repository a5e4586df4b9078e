1s/.*/#ifdef NETKIT_IMPLEMENTATION/
# also: impl_twice
