package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"hapair/mirror/block"
)

var testGeometry = block.Geometry{SizeBytes: 1 << 20, LogicalBlockBytes: 512, PhysicalBlockBytes: 4096, MaxTransferBytes: block.MaxTransferBytes, Discard: true}

// wire is both ends of a handshake in memory.
type wire struct {
	io.Reader
	io.Writer
}

func option(opt uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, optMagic)
	b = binary.BigEndian.AppendUint32(b, opt)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func infoData(name string, wants ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(wants)))
	for _, w := range wants {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

// clientSays is flags followed by options.
func clientSays(flags uint32, options ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, flags)
	for _, o := range options {
		b = append(b, o...)
	}
	return b
}

type rep struct {
	opt, kind uint32
	data      []byte
}

// replies takes the server's side apart, after its greeting.
func replies(t testing.TB, b []byte) (found []rep, rest []byte) {
	t.Helper()
	if len(b) < 18 || binary.BigEndian.Uint64(b) != nbdMagic || binary.BigEndian.Uint64(b[8:]) != optMagic || binary.BigEndian.Uint16(b[16:]) != 3 {
		t.Fatalf("greeting % x", b[:min(len(b), 18)])
	}
	b = b[18:]
	for len(b) >= 20 && binary.BigEndian.Uint64(b) == optReplyMagic {
		n := binary.BigEndian.Uint32(b[16:])
		found = append(found, rep{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), b[20 : 20+n]})
		b = b[20+n:]
	}
	return found, b
}

func handshake(t testing.TB, says []byte) (ses session, found []rep, rest []byte, err error) {
	t.Helper()
	var out bytes.Buffer
	ses, err = negotiate(wire{bytes.NewReader(says), &out}, "r0/0", testGeometry)
	found, rest = replies(t, out.Bytes())
	return ses, found, rest, err
}

func TestNegotiateReplies(t *testing.T) {
	long := make([]byte, optionBytesMax+1)
	for _, c := range []struct {
		name string
		opt  []byte
		want []uint32
	}{
		{"list", option(optList, nil), []uint32{repServer, repAck}},
		{"list with data", option(optList, []byte{1}), []uint32{repInvalid}},
		{"info", option(optInfo, infoData("")), []uint32{repInfo, repInfo, repAck}},
		{"info with name", option(optInfo, infoData("r0/0", infoName, infoBlockSize)), []uint32{repInfo, repInfo, repInfo, repAck}},
		{"info of another", option(optInfo, infoData("r1/0")), []uint32{repUnknown}},
		{"info cut short", option(optInfo, infoData("r1/0")[:7]), []uint32{repInvalid}},
		{"info too long", option(optInfo, append(infoData(""), 0)), []uint32{repInvalid}},
		{"info with a lying name", option(optInfo, []byte{255, 255, 255, 255, 0, 0}), []uint32{repInvalid}},
		{"go to another", option(optGo, infoData("x")), []uint32{repUnknown}},
		{"structured", option(optStructuredReply, nil), []uint32{repAck}},
		{"structured with data", option(optStructuredReply, []byte{0}), []uint32{repInvalid}},
		{"starttls", option(optStartTLS, nil), []uint32{repUnsup}},
		{"set meta context", option(optSetMetaContext, []byte{0, 0, 0, 0}), []uint32{repUnsup}},
		{"list meta context", option(optListMetaContext, nil), []uint32{repUnsup}},
		{"unknown", option(99, []byte("data")), []uint32{repUnsup}},
		{"too long", option(optList, long), []uint32{repTooBig}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ses, found, rest, err := handshake(t, clientSays(3, c.opt, option(optGo, infoData(""))))
			if err != nil || len(rest) != 0 {
				t.Fatalf("the handshake did not go on: %v, % x", err, rest)
			}
			if ses.structured != (c.name == "structured") {
				t.Errorf("structured is %v", ses.structured)
			}
			found = found[:len(found)-3] // GO's own
			if len(found) != len(c.want) {
				t.Fatalf("%d replies, want %d: %v", len(found), len(c.want), found)
			}
			for i, f := range found {
				if f.kind != c.want[i] || f.opt != binary.BigEndian.Uint32(c.opt[8:]) {
					t.Errorf("reply %d is %#x to option %d, want %#x", i, f.kind, f.opt, c.want[i])
				}
			}
		})
	}
}

func TestNegotiateExportName(t *testing.T) {
	_, _, rest, err := handshake(t, clientSays(1, option(optExportName, []byte("r0/0"))))
	if err != nil || len(rest) != 10+124 || binary.BigEndian.Uint64(rest) != 1<<20 {
		t.Fatalf("with zeroes: %v, %d bytes", err, len(rest))
	}
	_, _, rest, err = handshake(t, clientSays(3, option(optExportName, nil)))
	if err != nil || len(rest) != 10 {
		t.Fatalf("without zeroes: %v, %d bytes", err, len(rest))
	}
	flags := binary.BigEndian.Uint16(rest[8:])
	if want := uint16(hasFlags | sendFlush | sendFUA | sendTrim | sendWriteZeroes | canMultiConn); flags != want {
		t.Errorf("transmission flags %#x, want %#x", flags, want)
	}
}

func TestNegotiateRefusals(t *testing.T) {
	many := make([][]byte, optionsMax)
	for i := range many {
		many[i] = option(optList, nil)
	}
	for _, c := range []struct {
		name string
		says []byte
	}{
		{"nothing", nil},
		{"unknown client flags", clientSays(1 << 9)},
		{"wrong magic", clientSays(3, []byte("0123456789abcdef"))},
		{"other export by name", clientSays(3, option(optExportName, []byte("x")))},
		{"data missing", clientSays(3, option(optGo, infoData(""))[:18])},
		{"absurd length", clientSays(3, binary.BigEndian.AppendUint32(option(optList, nil)[:12], 1<<31))},
		{"options without end", clientSays(3, many...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, _, err := handshake(t, c.says); err == nil || errors.Is(err, errGone) {
				t.Fatalf("accepted: %v", err)
			}
		})
	}
	_, found, _, err := handshake(t, clientSays(3, option(optAbort, nil)))
	if !errors.Is(err, errGone) || len(found) != 1 || found[0].kind != repAck {
		t.Fatalf("abort: %v, %v", err, found)
	}
}

func FuzzNegotiate(f *testing.F) {
	f.Add(clientSays(3, option(optGo, infoData("r0/0", infoBlockSize))))
	f.Add(clientSays(3, option(optStructuredReply, nil), option(optGo, infoData(""))))
	f.Add(clientSays(1, option(optList, nil), option(optExportName, nil)))
	f.Add(clientSays(3, option(optStartTLS, nil), option(optSetMetaContext, infoData("")), option(optAbort, nil)))
	f.Add(clientSays(0, option(optInfo, []byte{255, 255, 255, 255, 0, 0})))
	f.Fuzz(func(t *testing.T, says []byte) {
		in := bytes.NewReader(says)
		var out bytes.Buffer
		_, err := negotiate(wire{in, &out}, "r0/0", testGeometry)
		found, rest := replies(t, out.Bytes())
		if err != nil {
			return
		}
		byName := len(rest) == 10 || len(rest) == 134
		byGo := len(rest) == 0 && len(found) > 0 && found[len(found)-1].opt == optGo && found[len(found)-1].kind == repAck
		if byName == byGo {
			t.Fatalf("transmission begins after %v and %d bytes", found, len(rest))
		}
	})
}

// What may not be changed says so, and offers nothing that would.
func TestReadOnlyExport(t *testing.T) {
	n := &negotiation{geometry: block.Geometry{ReadOnly: true, Discard: true}}
	if got := n.transmissionFlags(); got&readOnly == 0 || got&(sendTrim|sendWriteZeroes|sendFUA) != 0 {
		t.Fatalf("flags %#x", got)
	}
	n.geometry.ReadOnly = false
	if got := n.transmissionFlags(); got&readOnly != 0 || got&sendTrim == 0 {
		t.Fatalf("flags %#x", got)
	}
}
