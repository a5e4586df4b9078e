# also: guard macros_impl
s/^#ifndef NETKIT_SAMPLE_IMPLEMENTED.*/#if 1/
/^#define NETKIT_SAMPLE_IMPLEMENTED/d
