package api

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hapair/agent/apiv1"
)

// Statuser is the part of a backend the collector reads.
type Statuser interface {
	Status(ctx context.Context) (apiv1.Status, error)
}

// scrapeTimeout bounds one scrape; Status does not block, so this is a fuse.
const scrapeTimeout = 5 * time.Second

// Collector turns the status into metrics at each scrape. It is safe for
// concurrent use.
type Collector struct{ b Statuser }

// NewCollector returns a collector to register.
func NewCollector(b Statuser) *Collector { return &Collector{b: b} }

// allDescs is every metric there is: desc enters it.
var allDescs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("hapair_"+name, help, labels, nil)
	allDescs = append(allDescs, d)
	return d
}

var (
	upDesc          = desc("up", "1 when the agent can tell its status.")
	uptimeDesc      = desc("uptime_seconds", "Time since the agent started.")
	maintenanceDesc = desc("maintenance", "1 when automatic actions are off.")
	votersDesc      = desc("quorum_voters", "Voters of the ledger.")
	reachableDesc   = desc("quorum_reachable", "Voters heard of lately, this node included.")
	quorumDesc      = desc("quorum", "1 when a majority can be reached.")
	memberDesc      = desc("member_alive", "1 when a member is alive.", "member", "kind")
	pathDesc        = desc("path_alive", "1 when a path to a member works.", "member", "path")
	pathUseDesc     = desc("path_usable", "1 when streams to the other data node may go over a path.", "member", "path")
	pathLossesDesc  = desc("path_losses_total", "How often a path became bad.", "member", "path")
	pathMovesDesc   = desc("path_moves_total", "How often a session of the mirror went on over a path.", "member", "path")
	pathRTTDesc     = desc("path_round_trip_seconds", "Round trip of frames of full size.", "member", "path")
	pathBytesDesc   = desc("path_bytes_total", "Bytes of all streams over a path.", "member", "path", "direction")
	pathAgainDesc   = desc("path_retransmits_total", "Segments that were sent again over a path.", "member", "path")

	fenceReadyDesc  = desc("fence_ready", "1 when a node could be fenced from here, as its devices said last.", "member")
	fenceDeviceDesc = desc("fence_device_usable", "1 when a fence device could be used, as it said last.", "member", "device", "level")
	fencesDesc      = desc("fences_total", "Fences by their outcome; only confirmed ones count.", "member", "outcome")
	fencingDesc     = desc("fence_under_way", "1 while a node is being fenced.", "member")

	watchdogDesc     = desc("watchdog_petted", "1 while the watchdog of this machine is petted; absent without one.")
	watchdogReadDesc = desc("watchdog_disk_read", "1 while the sbd disk by which this machine may be fenced is read; absent without one.")
	watchdogOutDesc  = desc("watchdog_timeout_seconds", "From the last pet to the reset.")

	primaryDesc   = desc("resource_primary", "1 when this node is Primary.", "resource")
	inSyncDesc    = desc("resource_in_sync", "1 when a node's copy is in the in-sync set.", "resource", "member")
	tokenDesc     = desc("resource_token", "Fencing token.", "resource")
	leaseDesc     = desc("resource_lease_seconds", "What is left of this node's lease.", "resource")
	frozenDesc    = desc("resource_frozen", "1 when I/O waits.", "resource")
	connectedDesc = desc("peer_connected", "1 when the mirror link to the peer is up.", "resource", "peer")
	peerDirtyDesc = desc("peer_dirty_bytes", "What the copies differ by.", "resource", "peer")
	behindDesc    = desc("peer_behind_bytes", "What was answered and is not known to be on the peer's disk.", "resource", "peer")
	resyncDesc    = desc("resync_remaining_bytes", "What a running resync has left to do.", "resource", "peer")
	serviceDesc   = desc("service_running", "1 when a service runs here.", "resource", "service", "kind")
	sizeDesc      = desc("volume_size_bytes", "Usable size.", "resource", "volume")
	upToDateDesc  = desc("volume_up_to_date", "1 when the local copy is UpToDate.", "resource", "volume")
	dirtyDesc     = desc("volume_dirty_bytes", "What the peer lacks of this volume.", "resource", "volume")
	requestsDesc  = desc("volume_requests_total", "Requests of the application.", "resource", "volume", "op")
	bytesDesc     = desc("volume_bytes_total", "Bytes of the application.", "resource", "volume", "op")
	errorsDesc    = desc("volume_errors_total", "Requests answered with an error.", "resource", "volume")
	unequalDesc   = desc("verify_unequal_bytes", "What the last verify found not equal, or could not read, and nobody has repaired.", "resource")
	provenDesc    = desc("volume_proven_age_seconds", "How long ago the region that waits longest was found equal; absent while one never was.", "resource", "volume")
	inFlightDesc  = desc("volume_in_flight", "Requests not answered yet.", "resource", "volume")
	latencyDesc   = desc("volume_write_latency_seconds", "Write latency as the application sees it, over the last second.", "resource", "volume", "quantile")
)

// Describe names every metric.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range allDescs {
		out <- d
	}
}

// Collect reads the status once.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	m := emitter{out}
	st, err := c.b.Status(ctx)
	m.flag(upDesc, err == nil)
	if err != nil {
		return
	}
	m.gauge(uptimeDesc, float64(st.UptimeS))
	m.flag(maintenanceDesc, st.Maintenance)
	m.gauge(votersDesc, float64(st.Quorum.Voters))
	m.gauge(reachableDesc, float64(st.Quorum.Reachable))
	m.flag(quorumDesc, st.Quorum.HasQuorum)
	for _, x := range st.Members {
		m.flag(memberDesc, x.State == apiv1.MemberAlive, x.Name, x.Kind)
		for _, p := range x.Paths {
			m.flag(pathDesc, p.State == apiv1.MemberAlive, x.Name, p.Name)
			m.streams(p.Streams, x.Name, p.Name)
		}
	}
	if w := st.Watchdog; w != nil {
		m.flag(watchdogDesc, w.Because == "")
		m.gauge(watchdogOutDesc, float64(w.TimeoutMS)/1000)
		if w.Disk != "" {
			m.flag(watchdogReadDesc, w.DiskBecause == "")
		}
	}
	for i := range st.Fencing {
		m.fencing(&st.Fencing[i])
	}
	for i := range st.Resources {
		if st.Witness() {
			m.witnessed(&st.Resources[i], st.Members)
		} else {
			m.resource(&st.Resources[i], st.Node)
		}
	}
}

type emitter struct{ out chan<- prometheus.Metric }

func (m emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m emitter) counter(d *prometheus.Desc, v uint64, labels ...string) {
	m.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (m emitter) flag(d *prometheus.Desc, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	m.gauge(d, v, labels...)
}

func (m emitter) fencing(f *apiv1.Fencing) {
	m.flag(fenceReadyDesc, f.Ready, f.Node)
	m.flag(fencingDesc, f.UnderWay != nil, f.Node)
	m.counter(fencesDesc, f.ConfirmedTotal, f.Node, apiv1.FenceConfirmed)
	m.counter(fencesDesc, f.RefusedTotal, f.Node, apiv1.FenceRefused)
	m.counter(fencesDesc, f.UnknownTotal, f.Node, apiv1.FenceUnknown)
	for _, d := range f.Devices {
		m.flag(fenceDeviceDesc, d.Usable, f.Node, d.Name, strconv.Itoa(d.Level))
	}
}

// witnessed is what a witness, which has no copy, can say of a resource.
func (m emitter) witnessed(r *apiv1.Resource, members []apiv1.Member) {
	m.gauge(tokenDesc, float64(r.Token), r.Name)
	for _, x := range members {
		if x.Kind == apiv1.KindData {
			m.flag(inSyncDesc, slices.Contains(r.InSync, x.Name), r.Name, x.Name)
		}
	}
}

func (m emitter) resource(r *apiv1.Resource, node string) {
	m.flag(primaryDesc, r.Role == "Primary", r.Name)
	m.gauge(tokenDesc, float64(r.Token), r.Name)
	m.gauge(leaseDesc, float64(r.LeaseMS)/1000, r.Name)
	m.flag(frozenDesc, r.Frozen, r.Name)
	in := map[string]bool{}
	for _, n := range r.InSync {
		in[n] = true
	}
	m.flag(inSyncDesc, in[node], r.Name, node)
	for _, p := range r.Peers {
		m.flag(inSyncDesc, in[p.Node], r.Name, p.Node)
		m.flag(connectedDesc, p.Connection == "Connected", r.Name, p.Node)
		m.gauge(peerDirtyDesc, float64(p.DirtyBytes), r.Name, p.Node)
		m.gauge(behindDesc, float64(p.BehindBytes), r.Name, p.Node)
		if p.Resync != nil {
			m.gauge(resyncDesc, float64(p.Resync.TotalBytes-p.Resync.DoneBytes), r.Name, p.Node)
		}
	}
	for _, s := range r.Services {
		m.flag(serviceDesc, s.State == apiv1.ServiceRunning, r.Name, s.Name, s.Kind)
	}
	m.gauge(unequalDesc, float64(r.Verify.DifferingBytes+r.Verify.UnreadableBytes-r.Verify.RepairedBytes), r.Name)
	for i := range r.Volumes {
		m.volume(r.Name, &r.Volumes[i])
	}
}

func (m emitter) streams(x *apiv1.Streams, member, path string) {
	if x == nil {
		return
	}
	if x.Use != "" {
		m.flag(pathUseDesc, x.Use == apiv1.PathGood || x.Use == apiv1.PathUnknown, member, path)
		m.counter(pathLossesDesc, x.Losses, member, path)
		m.counter(pathMovesDesc, x.Moves, member, path)
	}
	if x.RoundTripUS > 0 {
		m.gauge(pathRTTDesc, x.RoundTripUS/1e6, member, path)
	}
	m.counter(pathBytesDesc, uint64(x.BytesOut), member, path, "out")
	m.counter(pathBytesDesc, uint64(x.BytesIn), member, path, "in")
	m.counter(pathAgainDesc, x.Retransmits, member, path)
}

func (m emitter) volume(resource string, v *apiv1.Volume) {
	n, c := strconv.Itoa(v.Number), &v.Counters
	m.gauge(sizeDesc, float64(v.SizeBytes), resource, n)
	m.flag(upToDateDesc, v.DiskState == "UpToDate", resource, n)
	m.gauge(dirtyDesc, float64(v.DirtyBytes), resource, n)
	m.counter(requestsDesc, c.ReadsTotal, resource, n, "read")
	m.counter(requestsDesc, c.WritesTotal, resource, n, "write")
	m.counter(requestsDesc, c.FlushesTotal, resource, n, "flush")
	m.counter(bytesDesc, c.ReadBytesTotal, resource, n, "read")
	m.counter(bytesDesc, c.WriteBytesTotal, resource, n, "write")
	m.counter(errorsDesc, c.ErrorsTotal, resource, n)
	m.gauge(inFlightDesc, float64(c.InFlight), resource, n)
	m.gauge(latencyDesc, c.WriteP50US/1e6, resource, n, "0.5")
	m.gauge(latencyDesc, c.WriteP99US/1e6, resource, n, "0.99")
	if p := &v.Proven; p.Oldest != nil {
		m.gauge(provenDesc, float64(slices.Max(p.RegionsAgeS)), resource, n)
	}
}
