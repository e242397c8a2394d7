package netns

import (
	"testing"

	"hapair/test/lab"
)

// walPair has a log on volume 0 and data on volume 1.
func walPair(t *testing.T, change func(*lab.Options)) *pair {
	return newPair(t, false, func(o *lab.Options) {
		o.Volumes = 2
		if change != nil {
			change(o)
		}
	})
}

// log writes each block to the log, and when that is answered to the data.
func (p *pair) log(primary string, more ...string) *probe {
	p.t.Helper()
	volumes := p.takeover(primary).Volumes
	return p.probeDevice(primary, volumes[1].Device, append(more, "-ahead", volumes[0].Device)...)
}

// logLeads wants no data without their log on a node, and all of either up to an
// instant. It returns the latest of the data.
func (p *pair) logLeads(node string, from uint64) (newest uint64) {
	p.t.Helper()
	volumes := p.takeover(node).Volumes
	log, data := p.readSlotsOf(node, volumes[0].Device), p.readSlotsOf(node, volumes[1].Device)
	logged := uint64(0)
	for slot := range data {
		newest, logged = max(newest, data[slot]), max(logged, log[slot])
		if data[slot] > log[slot] {
			p.t.Errorf("slot %d on %s: data of %d, and a log of %d", slot, node, data[slot], log[slot])
		}
	}
	for _, of := range []struct {
		what  string
		slots map[int64]uint64
		last  uint64
	}{{"log", log, logged}, {"data", data, newest}} {
		for n := max(from, of.last-min(of.last, slotCount-1)); n <= of.last; n++ {
			if has := of.slots[int64(n%slotCount)]; has != n {
				p.t.Errorf("the %s on %s has %d in the place of %d, though %d, which came later, is there", of.what, node, has, n, of.last)
			}
		}
	}
	if logged > newest+1 {
		p.t.Errorf("%s has a log up to %d and data up to %d only", node, logged, newest)
	}
	p.say("%s has a log up to %d and data up to %d", node, logged, newest)
	return newest
}

// A log on one volume and its data on another: never the data without the log,
// after power cuts of either node as Primary, and of both at once.
func TestWriteOrderAcrossVolumes(t *testing.T) {
	p := walPair(t, nil)
	primary, secondary := p.settle()
	for range 2 {
		first := p.next
		b := p.log(primary)
		b.progress(2 * steady)
		p.must(p.PowerOff(primary))
		p.takeover(secondary)
		last := b.newest()
		b.stop()
		if kept := p.logLeads(secondary, first); kept < last {
			t.Errorf("%d was answered, %d is there", last, kept)
		}
		p.must(p.PowerOn(primary))
		p.rejoined(primary)
		primary, secondary = secondary, primary
	}
	first := p.next
	b := p.log(primary)
	b.progress(2 * steady)
	p.must(p.PowerOff(primary))
	p.must(p.PowerOff(secondary))
	last := b.newest()
	b.stop()
	p.must(p.PowerOn(primary))
	p.must(p.PowerOn(secondary))
	primary, _ = p.settle()
	if kept := p.logLeads(primary, first); kept < last {
		t.Errorf("%d was made durable, %d is there", last, kept)
	}
	p.identical(primary)
}

// Protocol A: what reached the peer is all up to an instant, on both volumes
// together. Both nodes lose their power, and only the one that was behind comes
// back: the order holds through the loss of its cache as well.
func TestWriteOrderAcrossVolumesByProtocolA(t *testing.T) {
	long(t)
	p := walPair(t, by("A", "congestion: {fill: 64KiB}"))
	primary, secondary := p.settle()
	p.speaks(primary, "A")
	first := p.next
	b := p.log(primary)
	b.progress(2 * steady)
	heal := p.mute(primary)
	p.takeover(secondary)
	last := b.newest()
	kept := p.logLeads(secondary, first)
	p.say("up to %d answered, up to %d kept", last, kept)
	heal()
	p.rejoined(primary)
	b.end()
	primary, secondary = secondary, primary
	first = p.next
	b = p.log(primary)
	b.progress(2 * steady)
	p.must(p.PowerOff(primary))
	p.must(p.PowerOff(secondary))
	b.end()
	p.must(p.PowerOn(secondary))
	p.takeover(secondary)
	p.logLeads(secondary, first)
	p.must(p.PowerOn(primary))
	p.rejoined(primary)
	p.identical(secondary)
}
