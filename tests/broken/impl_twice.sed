/NETKIT_SAMPLE_IMPLEMENTED/d
# also: guard macros_impl
