package bubble

import (
	"math/rand"
	"time"
)

// hangDisks has the disks of a node hang for a while.
func (w *World) hangDisks(node string, d time.Duration) {
	b := w.get(node)
	if b == nil {
		return
	}
	w.notef("the disks of %s hang for %v", node, d)
	for _, h := range b.disks {
		h.hang(true)
	}
	time.Sleep(d)
	for _, h := range b.disks {
		h.hang(false)
	}
}

// failDisk has every request to the data disk of a node fail.
func (w *World) failDisk(node string, err error) {
	if b := w.get(node); b != nil {
		w.notef("the data disk of %s fails", node)
		b.disks[0].setError(err)
	}
}

// chaos breaks and mends one thing after another.
func (w *World) chaos(rng *rand.Rand, lasts time.Duration) {
	for end := time.Now().Add(lasts); time.Now().Before(end) && !w.violated(); {
		time.Sleep(within(rng, 10*time.Millisecond, 1500*time.Millisecond))
		w.fault(rng)
	}
}

// within draws a duration, short ones more often.
func within(rng *rand.Rand, least, most time.Duration) time.Duration {
	f := rng.Float64()
	return least + time.Duration(f*f*f*float64(most-least))
}

func (w *World) fault(rng *rand.Rand) {
	all := w.setup.nodes()
	i := rng.Intn(len(all))
	x, y := all[i], all[(i+1+rng.Intn(len(all)-1))%len(all)]
	data := dataNodes[rng.Intn(2)]
	switch rng.Intn(16) {
	case 0:
		w.notef("cut between %s and %s", x, y)
		w.fabric.cutLink(x, y)
	case 1:
		w.notef("cut from %s to %s", x, y)
		w.fabric.cutOneWay(x, y)
	case 2:
		w.notef("%s is cut off", x)
		w.fabric.isolate(x)
	case 3:
		w.flap(rng, x, y)
	case 4:
		w.pause(x, true)
		time.Sleep(within(rng, time.Millisecond, 8*time.Second))
		w.pause(x, false)
	case 5:
		w.hangDisks(data, within(rng, 10*time.Millisecond, 6*time.Second))
	case 6, 7, 8:
		w.restart(rng, x)
	case 9:
		if rng.Intn(2) == 0 {
			_ = w.switchover() // it may be refused
		}
	case 10:
		w.changeWeather(rng)
	case 11:
		w.bounce(rng, data)
	default:
		w.notef("all links are healed")
		w.fabric.healAll()
	}
}

func (w *World) flap(rng *rand.Rand, x, y string) {
	w.notef("the link between %s and %s flaps", x, y)
	for range 1 + rng.Intn(8) {
		w.fabric.cutLink(x, y)
		time.Sleep(within(rng, time.Millisecond, 800*time.Millisecond))
		w.fabric.heal(x, y)
		time.Sleep(within(rng, time.Millisecond, 800*time.Millisecond))
	}
}

// restart crashes a node and starts it again, or starts one that is down.
func (w *World) restart(rng *rand.Rand, node string) {
	w.crash(node, rng.Intn(3) > 0)
	time.Sleep(within(rng, time.Millisecond, 6*time.Second))
	if rng.Intn(4) > 0 {
		w.boot(node)
		return
	}
	w.notef("%s stays down", node)
	w.mu.Lock()
	down := w.boots[node] == nil
	w.mu.Unlock()
	if down {
		w.later(within(rng, time.Second, 15*time.Second), node)
	}
}

// later starts a node that is still down then, unless the world has ended.
func (w *World) later(d time.Duration, node string) {
	time.Sleep(min(d, 2*time.Second))
	if !w.up(node) {
		w.boot(node)
	}
}

// bounce stops an agent in order, meanwhile something else goes wrong perhaps,
// and starts it again.
func (w *World) bounce(rng *rand.Rand, node string) {
	if w.up(node) {
		_ = w.stop(node) // with nobody to hand over to it may fail
	}
	time.Sleep(within(rng, time.Millisecond, 3*time.Second))
	w.boot(node)
}

func (w *World) changeWeather(rng *rand.Rand) {
	slow, loss := within(rng, 200*time.Microsecond, 80*time.Millisecond), 0.0
	if rng.Intn(2) == 0 {
		loss = 0.3 * rng.Float64()
	}
	w.notef("messages take up to %v, %.0f %% of the datagrams are lost", slow, 100*loss)
	w.fabric.weather(slow, loss)
	for _, n := range dataNodes {
		if b := w.get(n); b != nil {
			for _, h := range b.disks {
				h.setSlow(within(rng, 100*time.Microsecond, 50*time.Millisecond))
			}
		}
	}
}
