package export

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"syscall"
	"testing"

	"hapair/mirror/block"
)

func TestRefuse(t *testing.T) {
	g := testGeometry
	g4k := g
	g4k.LogicalBlockBytes = 4096
	for _, c := range []struct {
		name string
		q    request
		g    block.Geometry
		want syscall.Errno
	}{
		{"read", request{kind: cmdRead, length: 512}, g, 0},
		{"the last block", request{kind: cmdWrite, offset: 1<<20 - 512, length: 512}, g, 0},
		{"read past the end", request{kind: cmdRead, offset: 1 << 20, length: 512}, g, syscall.EINVAL},
		{"write past the end", request{kind: cmdWrite, offset: 1<<20 - 512, length: 1024}, g, syscall.ENOSPC},
		{"offset that wraps", request{kind: cmdWrite, offset: math.MaxUint64 - 511, length: 1024}, g, syscall.ENOSPC},
		{"negative offset", request{kind: cmdRead, offset: 1 << 63, length: 512}, g, syscall.EINVAL},
		{"odd offset", request{kind: cmdRead, offset: 1, length: 512}, g, syscall.EINVAL},
		{"odd length", request{kind: cmdTrim, length: 100}, g, syscall.EINVAL},
		{"512 on blocks of 4096", request{kind: cmdWrite, length: 512}, g4k, syscall.EINVAL},
		{"nothing", request{kind: cmdRead}, g, syscall.EINVAL},
		{"too long", request{kind: cmdRead, length: requestBytesMax + 512}, g, syscall.EINVAL},
		{"fast zero", request{kind: cmdWriteZeroes, flags: flagFastZero, length: 512}, g, syscall.EOPNOTSUPP},
		{"zeroes", request{kind: cmdWriteZeroes, flags: flagNoHole | flagFUA, length: 512}, g, 0},
		{"no hole on a write", request{kind: cmdWrite, flags: flagNoHole, length: 512}, g, syscall.EINVAL},
		{"flush", request{kind: cmdFlush}, g, 0},
		{"cache", request{kind: 5, length: 512}, g, syscall.EINVAL},
		{"unknown", request{kind: 4711, length: 512}, g, syscall.EINVAL},
	} {
		if got := refuse(c.q, c.g); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// failing fails everything the same way.
type failing struct{ err error }

func (f failing) Submit(r *block.Request) { r.Answer(fmt.Errorf("volume 0: %w", f.err)) }

// exchange sends a stream, hangs up and returns what came back.
func exchange(t testing.TB, h block.Handler, ses session, stream []byte) []byte {
	t.Helper()
	client, served := pair(t, h, ses, 1<<26)
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(client) // an error here is the server hanging up on a bad stream
		got <- b
	}()
	// The server may hang up midway, which is what some tests are about.
	if _, err := client.Write(stream); err == nil {
		if err := client.CloseWrite(); err != nil {
			t.Log(err)
		}
	}
	<-served //nolint:errcheck // a bad stream is what some tests are about
	b := <-got
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestErrorNumbers(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{block.ErrIO, syscall.EIO},
		{block.ErrNoSpace, syscall.ENOSPC},
		{block.ErrNotPrimary, syscall.EPERM},
		{block.ErrClosed, syscall.ESHUTDOWN},
		{block.ErrNotSupp, syscall.EOPNOTSUPP},
		{block.ErrAlignment, syscall.EINVAL},
		{block.ErrSuspended, syscall.EIO},
		{io.ErrNoProgress, syscall.EIO},
	} {
		write := append(head(cmdWrite, 0, 7, 0, 512), make([]byte, 512)...)
		got := exchange(t, failing{c.err}, session{}, append(write, head(cmdDisconnect, 0, 0, 0, 0)...))
		want := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, simpleMagic), uint32(c.want))
		if want = binary.BigEndian.AppendUint64(want, 7); !bytes.Equal(got, want) {
			t.Errorf("%v: replied % x, want % x", c.err, got, want)
		}
		got = exchange(t, failing{c.err}, session{structured: true}, append(head(cmdRead, 0, 8, 0, 512), head(cmdDisconnect, 0, 0, 0, 0)...))
		if len(got) != 26 || binary.BigEndian.Uint16(got[6:]) != chunkError || binary.BigEndian.Uint32(got[20:]) != uint32(c.want) {
			t.Errorf("%v: structured reply % x", c.err, got)
		}
	}
}

// TestRefusedWriteKeepsTheStream: the data of a refused write are skipped, the
// request after it is understood.
func TestRefusedWriteKeepsTheStream(t *testing.T) {
	stream := append(head(cmdWrite, 0, 1, 1<<26, 1<<20), make([]byte, 1<<20)...)
	stream = append(stream, head(cmdFlush, 0, 2, 0, 0)...)
	got := exchange(t, instant{}, session{}, append(stream, head(cmdDisconnect, 0, 0, 0, 0)...))
	if len(got) != 32 || binary.BigEndian.Uint32(got[4:]) != uint32(syscall.ENOSPC) || binary.BigEndian.Uint32(got[20:]) != 0 {
		t.Fatalf("replies % x", got)
	}
}

// count counts requests by length.
type count struct{ lengths []int64 }

func (c *count) Submit(r *block.Request) {
	c.lengths = append(c.lengths, r.Length)
	r.Answer(block.Check(r, block.Geometry{SizeBytes: 1 << 26, LogicalBlockBytes: 512, MaxTransferBytes: block.MaxTransferBytes}))
}

func TestLongRequestsAreSplit(t *testing.T) {
	var c count
	stream := append(head(cmdWrite, 0, 1, 512, requestBytesMax), make([]byte, requestBytesMax)...)
	got := exchange(t, &c, session{}, append(stream, head(cmdRead, 0, 2, 0, requestBytesMax-512)...))
	if len(c.lengths) != 64 || c.lengths[0] != 1<<20 || c.lengths[63] != 1<<20-512 {
		t.Fatalf("pieces %v", c.lengths)
	}
	if len(got) != 16+16+requestBytesMax-512 || binary.BigEndian.Uint32(got[4:])|binary.BigEndian.Uint32(got[20:]) != 0 {
		t.Fatalf("%d bytes of replies", len(got))
	}
}

func FuzzRequests(f *testing.F) {
	write := append(head(cmdWrite, flagFUA, 1, 4096, 4096), make([]byte, 4096)...)
	f.Add(false, append(write, head(cmdDisconnect, 0, 0, 0, 0)...))
	f.Add(true, append(head(cmdRead, flagDF, 2, 0, 2<<20), head(cmdFlush, 0, 3, 0, 0)...))
	f.Add(true, append(head(cmdTrim, 0, 4, 0, 1<<26), head(cmdWriteZeroes, flagNoHole, 5, 512, 512)...))
	f.Add(false, append(head(cmdWrite, 0, 6, 0, math.MaxUint32), 1, 2, 3))
	f.Add(false, head(9, 0xffff, 7, math.MaxUint64, math.MaxUint32))
	f.Add(true, []byte("0123456789012345678901234567"))
	f.Fuzz(func(t *testing.T, structured bool, stream []byte) {
		got := exchange(t, instant{}, session{structured: structured}, stream)
		for len(got) >= 4 {
			n := simpleHeadBytes
			switch binary.BigEndian.Uint32(got) {
			case structuredMagic:
				n = chunkHeadBytes + int(binary.BigEndian.Uint32(got[16:]))
			case simpleMagic:
				if !structured {
					return // what data follow depends on the request
				}
			default:
				t.Fatalf("a reply begins with % x", got[:4])
			}
			if len(got) < n {
				return // the connection was cut
			}
			got = got[n:]
		}
	})
}
