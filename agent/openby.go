package main

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"hapair/mirror/front"
)

// openBy knows who holds the volumes of a resource open here. Every process is
// looked at for it, and a front end that starts or stops lets nobody ask, so
// the answer is kept for a while and waited for only a moment.
type openBy struct {
	ask func() ([][]front.Holder, error) // per volume
	own map[front.Holder]bool            // the mounts that are services of the resource: nobody needs to be told
	log *zap.Logger

	mu      sync.Mutex
	at      time.Time
	names   [][]string
	running chan struct{} // closed when the question under way is answered; nil: none
}

const (
	openByFor  = 5 * time.Second
	openByWait = 100 * time.Millisecond
)

func newOpenBy(r *resource) *openBy {
	o := &openBy{ask: r.mirror.Holders, own: map[front.Holder]bool{}, log: r.a.log.With(zap.String("resource", r.name))}
	for i := range r.conf.Services {
		if m := r.conf.Services[i].Mount; m != nil {
			o.own[front.Mounted(m.Path)] = true
		}
	}
	return o
}

// all returns the holders of each volume.
func (o *openBy) all() [][]string {
	o.mu.Lock()
	running := o.running
	if running == nil && time.Since(o.at) >= openByFor {
		running = make(chan struct{})
		o.running = running
		go o.find(running)
	}
	o.mu.Unlock()
	if running != nil {
		t := time.NewTimer(openByWait)
		defer t.Stop()
		select {
		case <-running:
		case <-t.C:
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.names
}

func (o *openBy) find(done chan struct{}) {
	defer close(done)
	all, err := o.ask()
	if err != nil {
		o.log.Debug("who holds the device open is not known", zap.Error(err))
	}
	var names [][]string
	for _, holders := range all {
		var who []string
		for _, h := range holders {
			if !o.own[h] {
				who = append(who, h.String())
			}
		}
		names = append(names, who)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.at, o.names, o.running = time.Now(), names, nil
}
