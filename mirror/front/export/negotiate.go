package export

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"hapair/mirror/block"
)

// errGone: the client ended the negotiation without taking the export.
var errGone = errors.New("the client went away")

// session is what a negotiation settles.
type session struct {
	structured bool
}

// negotiation is the server's side of one handshake. It reads not a byte more
// than the handshake has, so that the reader of requests can go on after it.
type negotiation struct {
	r        io.Reader
	w        *bufio.Writer
	name     string // the export's own name; the empty name is it too
	geometry block.Geometry
	session  session
	noZeroes bool
	buf      [optionBytesMax]byte
}

// negotiate settles the options with a client. A nil error means the client is
// now in the transmission phase; errGone that it left in good order.
func negotiate(rw io.ReadWriter, name string, g block.Geometry) (session, error) {
	n := &negotiation{r: rw, w: bufio.NewWriterSize(rw, 1024), name: name, geometry: g}
	if err := n.greet(); err != nil {
		return session{}, err
	}
	for range optionsMax {
		done, err := n.option()
		if err != nil {
			return session{}, err
		}
		if err := n.w.Flush(); err != nil {
			return session{}, fmt.Errorf("answer an option: %w", err)
		}
		if done {
			return n.session, nil
		}
	}
	return session{}, fmt.Errorf("client sent %d options without taking the export", optionsMax)
}

// greet exchanges magic and handshake flags.
func (n *negotiation) greet() error {
	n.put64(nbdMagic)
	n.put64(optMagic)
	n.put16(flagFixed | flagNoZeroes)
	if err := n.w.Flush(); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	if _, err := io.ReadFull(n.r, n.buf[:4]); err != nil {
		return fmt.Errorf("read client flags: %w", err)
	}
	flags := binary.BigEndian.Uint32(n.buf[:])
	if flags&^uint32(flagFixed|flagNoZeroes) != 0 {
		return fmt.Errorf("client flags %#x, known are %#x", flags, flagFixed|flagNoZeroes)
	}
	n.noZeroes = flags&flagNoZeroes != 0
	return nil
}

// option reads and answers one option; done means transmission begins.
func (n *negotiation) option() (done bool, err error) {
	head := n.buf[:16]
	if _, err := io.ReadFull(n.r, head); err != nil {
		return false, fmt.Errorf("read an option: %w", err)
	}
	if m := binary.BigEndian.Uint64(head); m != optMagic {
		return false, fmt.Errorf("option magic %#x, want %#x", m, uint64(optMagic))
	}
	opt, length := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
	if length > optionBytesMax {
		return false, n.skip(opt, length)
	}
	data := n.buf[:length]
	if _, err := io.ReadFull(n.r, data); err != nil {
		return false, fmt.Errorf("read the %d bytes of option %d: %w", length, opt, err)
	}
	return n.answer(opt, data)
}

// skip refuses an option that is too long, however long it says it is up to
// 64 times what any option needs.
func (n *negotiation) skip(opt, length uint32) error {
	if length > 64*optionBytesMax || opt == optExportName {
		return fmt.Errorf("option %d of %d bytes, limit %d", opt, length, optionBytesMax)
	}
	if _, err := io.CopyN(io.Discard, n.r, int64(length)); err != nil {
		return fmt.Errorf("skip option %d: %w", opt, err)
	}
	n.refuse(opt, repTooBig, "option is longer than any this server knows")
	return nil
}

func (n *negotiation) answer(opt uint32, data []byte) (done bool, err error) {
	switch opt {
	case optExportName:
		return true, n.exportName(data)
	case optAbort:
		n.reply(opt, repAck, nil)
		if err := n.w.Flush(); err != nil {
			return false, fmt.Errorf("acknowledge the client's abort: %w (%w)", err, errGone)
		}
		return false, errGone
	case optList:
		n.list(data)
	case optInfo, optGo:
		return n.info(opt, data), nil
	case optStructuredReply:
		if len(data) != 0 {
			n.refuse(opt, repInvalid, "this option has no data")
			return false, nil
		}
		n.session.structured = true
		n.reply(opt, repAck, nil)
	case optStartTLS:
		n.refuse(opt, repUnsup, "no TLS on a unix socket")
	default:
		n.refuse(opt, repUnsup, "option is not supported")
	}
	return false, nil
}

func (n *negotiation) knows(name string) bool { return name == "" || name == n.name }

// exportName is the old way to take the export: no way to refuse but to hang up.
func (n *negotiation) exportName(data []byte) error {
	if !n.knows(string(data)) {
		return fmt.Errorf("client wants export %.64q, this is %q", data, n.name)
	}
	n.put64(uint64(n.geometry.SizeBytes))
	n.put16(n.transmissionFlags())
	if !n.noZeroes {
		var zeroes [124]byte
		n.put(zeroes[:])
	}
	return nil
}

func (n *negotiation) list(data []byte) {
	if len(data) != 0 {
		n.refuse(optList, repInvalid, "this option has no data")
		return
	}
	entry := binary.BigEndian.AppendUint32(nil, uint32(len(n.name)))
	n.reply(optList, repServer, append(entry, n.name...))
	n.reply(optList, repAck, nil)
}

// info answers INFO and GO, which differ only in what follows.
func (n *negotiation) info(opt uint32, data []byte) (done bool) {
	name, wants, ok := parseInfo(data)
	if !ok {
		n.refuse(opt, repInvalid, "name and information requests do not fill the option")
		return false
	}
	if !n.knows(name) {
		n.refuse(opt, repUnknown, "no such export here")
		return false
	}
	export := binary.BigEndian.AppendUint16(nil, infoExport)
	export = binary.BigEndian.AppendUint64(export, uint64(n.geometry.SizeBytes))
	n.reply(opt, repInfo, binary.BigEndian.AppendUint16(export, n.transmissionFlags()))
	for _, want := range wants {
		if want == infoName {
			n.reply(opt, repInfo, append(binary.BigEndian.AppendUint16(nil, infoName), n.name...))
		}
	}
	// Sent unasked too: a client that does not ask may still listen.
	n.reply(opt, repInfo, n.blockSize())
	n.reply(opt, repAck, nil)
	return opt == optGo
}

// blockSize is the least, the preferred and the largest length of a request.
func (n *negotiation) blockSize() []byte {
	preferred := max(n.geometry.PhysicalBlockBytes, 4096)
	b := binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, uint32(n.geometry.LogicalBlockBytes))
	b = binary.BigEndian.AppendUint32(b, uint32(preferred))
	return binary.BigEndian.AppendUint32(b, requestBytesMax)
}

// parseInfo takes the data of INFO and GO apart.
func parseInfo(data []byte) (name string, wants []uint16, ok bool) {
	if len(data) < 6 {
		return "", nil, false
	}
	nameBytes := binary.BigEndian.Uint32(data)
	if nameBytes > exportNameMax || int(nameBytes) > len(data)-6 {
		return "", nil, false
	}
	name, data = string(data[4:4+nameBytes]), data[4+nameBytes:]
	count := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if len(data) != 2*count {
		return "", nil, false
	}
	for ; len(data) > 0; data = data[2:] {
		wants = append(wants, binary.BigEndian.Uint16(data))
	}
	return name, wants, true
}

func (n *negotiation) transmissionFlags() uint16 {
	flags := uint16(hasFlags | sendFlush | sendFUA | sendWriteZeroes | canMultiConn)
	if n.geometry.Discard {
		flags |= sendTrim
	}
	if n.geometry.ReadOnly {
		flags = hasFlags | readOnly | sendFlush | canMultiConn
	}
	if n.session.structured {
		flags |= sendDF
	}
	return flags
}

func (n *negotiation) refuse(opt, rep uint32, text string) { n.reply(opt, rep, []byte(text)) }

func (n *negotiation) reply(opt, rep uint32, data []byte) {
	n.put64(optReplyMagic)
	n.put32(opt)
	n.put32(rep)
	n.put32(uint32(len(data)))
	n.put(data)
}

// put keeps the first error inside the bufio.Writer, whose Flush returns it.
func (n *negotiation) put(b []byte) {
	if _, err := n.w.Write(b); err != nil {
		return // Flush returns it again
	}
}

func (n *negotiation) put16(v uint16) { n.put(binary.BigEndian.AppendUint16(nil, v)) }
func (n *negotiation) put32(v uint32) { n.put(binary.BigEndian.AppendUint32(nil, v)) }
func (n *negotiation) put64(v uint64) { n.put(binary.BigEndian.AppendUint64(nil, v)) }
