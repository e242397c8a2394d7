package mirror

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"hapair/mirror/block"
	"hapair/mirror/state"
	"hapair/mirror/wire"
)

var errNoDevice = errors.New("no loop device is free")

// brokenDoor does not start while fails is set, which it calls, and knows whether it is
// open.
type brokenDoor struct {
	door
	fails func()
	open  atomic.Bool
}

func (d *brokenDoor) Start(ctx context.Context, h block.Handler, g block.Geometry) (string, error) {
	if d.fails != nil {
		d.fails()
		return "", errNoDevice
	}
	d.open.Store(true)
	return d.door.Start(ctx, h, g)
}

func (d *brokenDoor) Stop(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.open.Store(false)
	return nil
}

// A promotion whose devices do not all open leaves none, says so, and is tried again.
func TestPromotionWithoutADevice(t *testing.T) {
	r, _ := twoVolumes(t)
	r.Start()
	doors := make([]*brokenDoor, len(r.vols))
	for i, v := range r.vols {
		doors[i] = &brokenDoor{}
		v.cfg.Frontend = doors[i]
	}
	r.SetRecord(wire.Record{Token: 2, Tenure: 2, Primary: "alpha", InSync: []string{"alpha", "beta"}})
	late, cancel := context.WithCancel(t.Context())
	doors[1].fails = cancel // all the time there was is over
	_, err := r.Promote(late, 2, false)
	if !errors.Is(err, errNoDevice) {
		t.Fatalf("promoted: %v", err)
	}
	if v := r.View(); v.Role != state.Primary || !v.Unopened() || !slices.Equal(v.Devices, []string{"", ""}) || doors[0].open.Load() {
		t.Fatalf("%s with the devices %q", v.Role, v.Devices)
	}
	doors[1].fails = nil
	paths, err := r.Promote(t.Context(), 2, false)
	must(t, err)
	if v := r.View(); v.Unopened() || len(paths) != 2 || !doors[0].open.Load() || !doors[1].open.Load() {
		t.Fatalf("promoted with %q, of which some are not there", paths)
	}
	must(t, r.Abort(t.Context(), block.ErrNotPrimary))
	if v := r.View(); v.Unopened() {
		t.Fatalf("%s, and wants its devices", v.Role)
	}
	must(t, r.Close(context.Background()))
}
