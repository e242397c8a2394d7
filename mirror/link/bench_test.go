package link

import (
	"testing"

	"hapair/mirror/wire"
)

// pingPong makes beta acknowledge every write, and alpha count the acks.
func pingPong(t testing.TB) (r *rig, session uint64, acks chan struct{}) {
	acks = make(chan struct{}, 1<<16)
	r = newRig(t, nil, func(r *rig) {
		r.bsink.hook = func(session uint64, m *wire.Message) {
			r.beta.Send(session, wire.Message{Kind: wire.Ack, ID: m.ID, Token: m.Token})
			r.beta.Flush()
		}
		r.asink.hook = func(uint64, *wire.Message) { acks <- struct{}{} }
	})
	session, _ = r.up()
	return r, session, acks
}

func TestNoAllocations(t *testing.T) {
	r, session, acks := pingPong(t)
	m := writeMessage(1, 4096)
	if n := testing.AllocsPerRun(2000, func() {
		r.alpha.Send(session, m)
		r.alpha.Flush()
		<-acks
	}); n > 0.1 { // pings allocate nothing either; the runtime now and then
		t.Fatalf("%v allocations per round trip", n)
	}
}

func benchmark(b *testing.B, size, depth int) {
	r, session, acks := pingPong(b)
	m := writeMessage(1, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	flying := 0
	for range b.N {
		r.alpha.Send(session, m)
		r.alpha.Flush()
		if flying++; flying == depth {
			<-acks
			flying--
		}
	}
	for ; flying > 0; flying-- {
		<-acks
	}
	b.StopTimer()
}

func BenchmarkRoundTrip4K(b *testing.B) { benchmark(b, 4096, 1) }
func BenchmarkDepth32x4K(b *testing.B)  { benchmark(b, 4096, 32) }
func BenchmarkDepth8x64K(b *testing.B)  { benchmark(b, 65536, 8) }
func BenchmarkDepth8x1M(b *testing.B)   { benchmark(b, 1<<20, 8) }
