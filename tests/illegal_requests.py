# Sends what no client may send, and sees that each gets its error and the session lives on.
# Run by tests/interop_illegal.rs with the URI of an export of 1 MiB.
import sys
import nbd

SIZE = 1 << 20
EINVAL, ENOSPC = "EINVAL", "ENOSPC"


def refused(what, expected, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errno == expected, f"{what}: {error.errno} instead of {expected}"
    else:
        raise AssertionError(f"{what}: was granted")
    assert len(h.pread(512, 0)) == 512, f"{what}: the session is over"


h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated()
h.set_strict_mode(0)

data = b"x" * 1024
ignore = lambda *_: 0
refused("read past the end", EINVAL, lambda: h.pread(2, SIZE - 1))
refused("read far past the end", EINVAL, lambda: h.pread(2, 1 << 62))
refused("write past the end", ENOSPC, lambda: h.pwrite(data, SIZE - 512))
refused("zero past the end", ENOSPC, lambda: h.zero(1024, SIZE - 512))
refused("trim past the end", EINVAL, lambda: h.trim(1024, SIZE - 512))
refused("cache past the end", EINVAL, lambda: h.cache(1024, SIZE - 512))
refused("status past the end", EINVAL, lambda: h.block_status(1024, SIZE - 512, ignore))
refused("status of nothing", EINVAL, lambda: h.block_status(0, 0, ignore))
refused("read, NO_HOLE", EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE))
refused("read, unknown flag", EINVAL, lambda: h.pread(512, 0, 0x4000))
refused("write, DF", EINVAL, lambda: h.pwrite(data, 0, nbd.CMD_FLAG_DF))
refused("write, FAST_ZERO", EINVAL, lambda: h.pwrite(data, 0, nbd.CMD_FLAG_FAST_ZERO))
refused("trim, REQ_ONE", EINVAL, lambda: h.trim(512, 0, nbd.CMD_FLAG_REQ_ONE))
refused("flush, DF", EINVAL, lambda: h.flush(nbd.CMD_FLAG_DF))
refused("status, DF", EINVAL, lambda: h.block_status(512, 0, ignore, nbd.CMD_FLAG_DF))

# What is odd, and legal.
assert h.pread(512, 0, nbd.CMD_FLAG_FUA) == h.pread(512, 0)
assert h.pread_structured(65536, 0, ignore, nbd.CMD_FLAG_DF) == h.pread(65536, 0)
h.flush(nbd.CMD_FLAG_FUA)
h.zero(512, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(512, 0) == bytearray(512)
h.trim(0, SIZE)
h.cache(0, SIZE)
h.pwrite(b"", SIZE)
assert h.pread(0, SIZE) == b""
h.shutdown()

# A context of another export is none of this one's.
h = nbd.NBD()
h.add_meta_context("base:other")
h.add_meta_context("nobody:knows")
h.connect_uri(sys.argv[1])
h.set_strict_mode(0)
refused("status without a context", EINVAL, lambda: h.block_status(512, 0, ignore))
h.shutdown()
print("all refused")
