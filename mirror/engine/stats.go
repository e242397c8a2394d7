package engine

import (
	"math/bits"
	"time"
)

// Stats counts what applications did since attach. Latency is from the
// submission of a write to its answer.
type Stats struct {
	Writes, Reads, Flushes uint64
	WriteBytes, ReadBytes  uint64
	Errors                 uint64
	WriteLatency           Histogram
}

// histogramBuckets: four per power of two, from 1 us to over 4 s.
const histogramBuckets = 4 * 23

// Histogram counts durations in buckets a quarter of a power of two wide.
type Histogram [histogramBuckets]uint64

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	us := uint64(max(d.Microseconds(), 1))
	log := bits.Len64(us) - 1
	quarter := int(us<<2>>log) & 3
	h[min(log*4+quarter, histogramBuckets-1)]++
}

// Sub returns what was counted since an earlier snapshot.
func (h Histogram) Sub(earlier *Histogram) Histogram {
	for i := range h {
		h[i] -= earlier[i]
	}
	return h
}

// Quantile returns an upper bound of the q-quantile, 0 < q <= 1; 0 when
// nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range h {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := uint64(q * float64(total))
	for i, n := range h {
		if rank < n || i == histogramBuckets-1 {
			log, quarter := i/4, i%4
			return time.Duration((uint64(1)<<log)*uint64(5+quarter)/4) * time.Microsecond
		}
		rank -= n
	}
	return 0
}
