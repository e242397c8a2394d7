package vip

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"hapair/failover/vip/frame"
)

// watch announces the address for the first time and starts the goroutine that
// repeats it, and that puts the address back when it is stripped. The returned
// function stops that goroutine and waits for it.
func (a *Address) watch(p *port) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{a: a, p: p, done: make(chan struct{})}
	w.subscribe()
	if l, err := p.link(); err == nil { // a device just lost tells as much below
		w.carrier = l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
	}
	var err error
	if w.rivals, err = p.listenForRivals(a.ip); err != nil {
		a.log.Warn("it cannot be seen whether another station claims the address", zap.Error(err))
	}
	w.begin()
	go w.run(ctx)
	return func() {
		cancel()
		<-w.done
	}
}

// watcher is owned by its run goroutine, but for done.
type watcher struct {
	a    *Address
	p    *port
	done chan struct{}

	links   chan netlink.LinkUpdate // nil when it could not be subscribed
	addrs   chan netlink.AddrUpdate
	routes  chan netlink.RouteUpdate // nil too where the address is no source
	unsub   chan struct{}
	carrier bool
	since   time.Time // start of the present round of announcements
	next    int       // index into Config.Announce
	users   *ear      // nil when a neighbour was heard, or cannot be
	rivals  *ear      // nil when they cannot be heard
	rival   time.Time // last told of one
	stray   bool      // routes have changed
	led     time.Time // last look at them
	missing bool      // stripped and not yet back
	denied  bool      // missing, and may not be put back as yet
	tried   time.Time // last attempt to put it back
}

// subscribe opens the netlink sockets, in the caller's namespace. Without them
// the address is still checked at every refresh.
func (w *watcher) subscribe() {
	w.unsub = make(chan struct{})
	failed := func(err error) { w.a.log.Warn("netlink subscription ended", zap.Error(err)) }
	links, addrs := make(chan netlink.LinkUpdate, 16), make(chan netlink.AddrUpdate, 16)
	err := netlink.LinkSubscribeWithOptions(links, w.unsub, netlink.LinkSubscribeOptions{ErrorCallback: w.unless(failed)})
	if err == nil {
		w.links = links
		err = netlink.AddrSubscribeWithOptions(addrs, w.unsub, netlink.AddrSubscribeOptions{ErrorCallback: w.unless(failed)})
	}
	if err != nil {
		failed(err)
		return
	}
	w.addrs = addrs
	if !w.p.site.SourceFor.IsValid() {
		return
	}
	routes := make(chan netlink.RouteUpdate, 16)
	if err := netlink.RouteSubscribeWithOptions(routes, w.unsub, netlink.RouteSubscribeOptions{ErrorCallback: w.unless(failed)}); err != nil {
		failed(err)
		return
	}
	w.routes = routes
}

// unless silences the error that closing the subscription brings about.
func (w *watcher) unless(report func(error)) func(error) {
	return func(err error) {
		select {
		case <-w.unsub:
		default:
			report(err)
		}
	}
}

func (w *watcher) unsubscribe() {
	close(w.unsub)
	if w.links != nil {
		for range w.links { // the library's goroutine may be waiting to send
		}
	}
	if w.addrs != nil {
		for range w.addrs {
		}
	}
	if w.routes != nil {
		for range w.routes {
		}
	}
}

// begin starts a round of announcements and makes those that are due at once.
func (w *watcher) begin() {
	w.since, w.next = time.Now(), 0
	w.deafen()
	if len(w.a.cfg.Announce) > 0 {
		var err error
		if w.users, err = w.p.listenForUse(w.a.ip); err != nil {
			w.a.log.Warn("it cannot be seen whether the neighbours know", zap.Error(err))
		}
	}
	for w.next < len(w.a.cfg.Announce) && w.a.cfg.Announce[w.next] == 0 {
		w.next++
		w.announce()
	}
}

func (w *watcher) deafen() {
	w.users.close()
	w.users = nil
}

// announce claims nothing that another may have by now.
func (w *watcher) announce() {
	if !w.a.mayHold() {
		return
	}
	if err := w.p.announce(w.a.ip); err != nil {
		w.a.log.Warn("address not announced", zap.Error(err))
	}
}

// wait returns how long until there is something to do.
func (w *watcher) wait() time.Duration {
	if w.missing { // nothing else is done meanwhile
		return max(time.Until(w.tried.Add(w.pause())), 0)
	}
	const never = 24 * time.Hour
	due := never
	if w.next < len(w.a.cfg.Announce) {
		due = time.Until(w.since.Add(w.a.cfg.Announce[w.next]))
	} else if w.a.cfg.Refresh > 0 && len(w.a.cfg.Announce) > 0 {
		due = w.a.cfg.Refresh
	}
	if w.users != nil && time.Since(w.since) < insistFor {
		due = min(due, w.a.cfg.Insist)
	}
	if w.stray {
		due = min(due, time.Until(w.led.Add(leadEvery)))
	}
	return max(due, 0)
}

// pause is the time between two attempts to put the address back. One that may not be
// put back is not fought for: it is back as soon as it may.
func (w *watcher) pause() time.Duration {
	if w.denied {
		return askEvery
	}
	return restoreEvery
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	defer w.unsubscribe()
	defer w.deafen()
	defer w.rivals.close()
	timer := time.NewTimer(w.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case u, ok := <-w.links:
			if !ok {
				w.links = nil
			} else if int(u.Index) == w.p.index {
				w.onLink(ctx, u)
			}
		case u, ok := <-w.addrs:
			if !ok {
				w.addrs = nil
			} else if !u.NewAddr && u.LinkIndex == w.p.index && sameIP(u, w.a.ip) {
				w.onStripped(ctx)
			}
		case u, ok := <-w.routes:
			if !ok {
				w.routes = nil
			} else if w.p.site.concerned(&u.Route) {
				w.stray = true
			}
		case mac := <-w.users.macs():
			w.deafen()
			w.told(Event{What: Learnt, MAC: mac})
		case mac := <-w.rivals.macs():
			w.onRival(mac)
		case <-timer.C:
			w.onTime(ctx)
		}
		timer.Reset(w.wait())
	}
}

func sameIP(u netlink.AddrUpdate, ip netip.Addr) bool {
	got, ok := netip.AddrFromSlice(u.LinkAddress.IP)
	return ok && got.Unmap() == ip
}

func (w *watcher) onLink(ctx context.Context, u netlink.LinkUpdate) {
	if w.p.site.Virtual() && (u.Header.Type == unix.RTM_DELLINK || !whole(u.Link, w.p.site)) {
		w.onStripped(ctx)
		return
	}
	up := u.IfInfomsg.Flags&unix.IFF_LOWER_UP != 0
	if up == w.carrier {
		return
	}
	w.carrier = up
	if !up {
		w.tell(CarrierOff, nil)
		return
	}
	if !w.missing {
		w.begin()
	}
	w.tell(CarrierUp, nil)
}

func (w *watcher) onRival(mac frame.MAC) {
	if !w.rival.IsZero() && time.Since(w.rival) < rivalEvery {
		return
	}
	w.rival = time.Now()
	w.told(Event{What: Contested, MAC: mac})
}

func (w *watcher) onStripped(ctx context.Context) {
	if there, err := w.p.has(w.a.cfg.Prefix); there && err == nil {
		return // already back
	}
	if !w.missing {
		w.missing, w.denied = true, !w.a.mayHold()
		w.tell(Stripped, nil)
	}
	if err := w.p.unlead(); err != nil { // a source that nobody has lets no connection come about
		w.a.log.Error("the address is gone, and may still be the source of what leaves", zap.Error(err))
	}
	if time.Since(w.tried) >= w.pause() {
		w.restore(ctx)
	}
}

func (w *watcher) onTime(ctx context.Context) {
	switch {
	case w.missing && time.Since(w.tried) >= w.pause():
		w.restore(ctx)
	case w.missing:
	case w.stray && time.Since(w.led) >= leadEvery:
		w.lead()
	case w.next < len(w.a.cfg.Announce):
		if time.Until(w.since.Add(w.a.cfg.Announce[w.next])) <= 0 {
			w.next++
			w.announce()
		}
	default:
		w.onRefresh(ctx)
	}
}

// onRefresh also looks whether the address is still there, in case its removal
// went unreported.
func (w *watcher) onRefresh(ctx context.Context) {
	there, err := w.p.has(w.a.cfg.Prefix)
	if err == nil && !there {
		w.onStripped(ctx)
		return
	}
	w.lead()
	if err := w.p.mend(); err != nil {
		w.a.log.Warn("the device of the virtual MAC is not as it should be", zap.Error(err))
	}
	w.announce()
}

// lead has the address be the source again, as the routes of the node now are.
func (w *watcher) lead() {
	w.stray, w.led = false, time.Now()
	did, err := w.p.lead()
	switch {
	case err != nil:
		w.a.log.Warn("the address is not the source of what leaves", zap.Stringer("to", w.p.site.SourceFor), zap.Error(err))
	case did:
		w.a.log.Info("what leaves with the address as its source follows the routes of the node again", zap.Stringer("to", w.p.site.SourceFor))
	}
}

func (w *watcher) restore(ctx context.Context) {
	w.tried, w.denied = time.Now(), !w.a.mayHold()
	if w.denied {
		return
	}
	if err := w.a.take(ctx, w.p); err != nil {
		w.denied = errors.Is(err, ErrMayNotHold)
		if ctx.Err() == nil {
			w.tell(NotBack, err)
		}
		return
	}
	w.missing = false
	w.begin()
	w.tell(Restored, nil)
}

func (w *watcher) tell(what Happening, err error) { w.told(Event{What: what, Err: err}) }

func (w *watcher) told(e Event) {
	log := w.a.log.Info
	if e.What == Stripped || e.What == Contested || e.Err != nil {
		log = w.a.log.Warn
	}
	fields := []zap.Field{zap.Error(e.Err)}
	if e.MAC != (frame.MAC{}) {
		fields = append(fields, zap.Stringer("mac", e.MAC), zap.Duration("after", time.Since(w.since)))
	}
	log("address "+string(e.What), fields...)
	if w.a.cfg.Event != nil {
		w.a.cfg.Event(e)
	}
}
