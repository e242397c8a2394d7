package export

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// The constants of the NBD protocol, named as its text names them
// (NetworkBlockDevice/nbd doc/proto.md).
const (
	nbdMagic         = 0x4e42444d41474943 // "NBDMAGIC"
	optMagic         = 0x49484156454f5054 // "IHAVEOPT"
	optReplyMagic    = 0x3e889045565a9
	requestMagic     = 0x25609513
	simpleMagic      = 0x67446698
	structuredMagic  = 0x668e33ef
	flagFixed        = 1 << 0 // handshake flags, both ways
	flagNoZeroes     = 1 << 1
	exportNameMax    = 4096
	requestHeadBytes = 28
	simpleHeadBytes  = 16
	chunkHeadBytes   = 20
)

// Options and their replies.
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMetaContext = 9
	optSetMetaContext  = 10

	repAck     = 1
	repServer  = 2
	repInfo    = 3
	repErrors  = 1 << 31
	repUnsup   = repErrors | 1
	repInvalid = repErrors | 3
	repUnknown = repErrors | 6
	repTooBig  = repErrors | 9

	infoExport    = 0
	infoName      = 1
	infoBlockSize = 3
)

// Transmission flags.
const (
	hasFlags        = 1 << 0
	readOnly        = 1 << 1
	sendFlush       = 1 << 2
	sendFUA         = 1 << 3
	sendTrim        = 1 << 5
	sendWriteZeroes = 1 << 6
	sendDF          = 1 << 7
	canMultiConn    = 1 << 8
)

// Commands and their flags.
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6

	flagFUA      = 1 << 0
	flagNoHole   = 1 << 1
	flagDF       = 1 << 2
	flagFastZero = 1 << 4
)

// Chunk types and flags of structured replies.
const (
	chunkDone       = 1 << 0
	chunkOffsetData = 1
	chunkError      = 1<<15 | 1
)

// The error numbers of the protocol. They are Linux's, and no others may be
// sent.
func nbdErrno(e syscall.Errno) uint32 {
	switch e {
	case 0, syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC,
		syscall.EOVERFLOW, syscall.EOPNOTSUPP, syscall.ESHUTDOWN:
		return uint32(e)
	}
	return uint32(syscall.EIO)
}

// request is one request of the transmission phase.
type request struct {
	flags  uint16
	kind   uint16
	cookie uint64
	offset uint64
	length uint32
}

// errMagic: what arrived is not a request; the stream cannot be found again.
var errMagic = errors.New("not an NBD request")

// parseRequest reads a request's head of requestHeadBytes.
func parseRequest(b []byte) (request, error) {
	if m := binary.BigEndian.Uint32(b); m != requestMagic {
		return request{}, fmt.Errorf("magic %#x, want %#x: %w", m, requestMagic, errMagic)
	}
	return request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		kind:   binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}, nil
}
