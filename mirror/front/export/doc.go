// Package export offers a volume as an NBD export on a unix socket that only
// root may open: for QEMU and libvirt, libnbd, fio, nbd-client.
//
// It speaks the fixed newstyle protocol with structured replies, flush, FUA,
// trim, write-zeroes and block size constraints, and tells clients that
// several connections see one cache (a flush on one covers writes answered on
// another: every connection submits to the same Handler).
//
// The life of a request, one file each:
//
//  1. negotiate.go: a client connects, the options are settled
//  2. conn.go: the connection's reader takes requests off the socket, judges
//     them (judge.go) and submits them without waiting for earlier ones
//  3. command.go: a request longer than block.MaxTransferBytes is several
//     pieces; the last piece to be done answers
//  4. reply.go: whoever brings the last piece writes the reply, together with
//     all others that are ready
package export
