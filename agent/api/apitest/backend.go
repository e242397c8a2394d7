// Package apitest has a backend without an agent behind it, for tests of the
// API's two ends.
package apitest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hapair/agent/api"
	"hapair/agent/apiv1"
)

// Backend answers from what the test put into it and remembers what was asked.
// It is safe for concurrent use.
type Backend struct {
	*api.Hub

	mu      sync.Mutex
	status  apiv1.Status
	explain map[string]apiv1.Explanation
	fail    map[string]error
	asked   []string
}

// New returns a backend that shows st.
func New(st apiv1.Status, now func() time.Time) *Backend {
	return &Backend{
		Hub: api.NewHub(st.Node, now), status: st,
		explain: map[string]apiv1.Explanation{}, fail: map[string]error{},
	}
}

// SetStatus replaces the status.
func (b *Backend) SetStatus(st apiv1.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = st
}

// SetExplanation sets the answer for one resource.
func (b *Backend) SetExplanation(e apiv1.Explanation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.explain[e.Resource] = e
}

// Fail makes a verb fail with err; nil makes it work again.
func (b *Backend) Fail(verb string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail[verb] = err
}

// Asked returns every change asked for, as "verb resource request".
func (b *Backend) Asked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.asked...)
}

// Status returns what the test set.
func (b *Backend) Status(context.Context) (apiv1.Status, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.status
	st.EventSeq = b.Seq()
	return st, b.fail["status"]
}

// Explain returns what the test set.
func (b *Backend) Explain(_ context.Context, resource string) (apiv1.Explanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.known(resource); err != nil {
		return apiv1.Explanation{}, err
	}
	return b.explain[resource], b.fail[apiv1.VerbExplain]
}

func (b *Backend) known(resource string) error {
	if b.status.Resource(resource) == nil {
		return &apiv1.Problem{Code: apiv1.CodeNotFound, Text: fmt.Sprintf("no resource %q", resource), Hint: "hactl status lists them"}
	}
	return nil
}

func (b *Backend) change(ctx context.Context, verb, resource string, req any, was, now string) (apiv1.Changed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if resource != "" {
		if err := b.known(resource); err != nil {
			return apiv1.Changed{}, err
		}
	}
	b.asked = append(b.asked, fmt.Sprintf("%s %s %+v", verb, resource, req))
	if err := b.fail[verb]; err != nil {
		return apiv1.Changed{}, err
	}
	if err := ctx.Err(); err != nil {
		return apiv1.Changed{}, err
	}
	return apiv1.Changed{
		Resource: resource, Node: b.status.Node, Was: was, Now: now, TookMS: 7,
		Text: fmt.Sprintf("%s: was %s, now %s", verb, was, now),
	}, nil
}

// Promote records the request.
func (b *Backend) Promote(ctx context.Context, res string, r apiv1.PromoteRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbPromote, res, r, "Secondary", "Primary")
}

// Demote records the request.
func (b *Backend) Demote(ctx context.Context, res string, r apiv1.DemoteRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbDemote, res, r, "Primary", "Secondary")
}

// Switchover records the request.
func (b *Backend) Switchover(ctx context.Context, res string, r apiv1.SwitchoverRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbSwitchover, res, r, "Primary", "Secondary")
}

// Cleanup records the request.
func (b *Backend) Cleanup(ctx context.Context, res string, r apiv1.CleanupRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbCleanup, res, r, "3", "0")
}

// Connect records the request.
func (b *Backend) Connect(ctx context.Context, res string, r apiv1.ConnectRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbConnect, res, r, "StandAlone", "Connecting")
}

// Disconnect records the request.
func (b *Backend) Disconnect(ctx context.Context, res string, r apiv1.DisconnectRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbDisconnect, res, r, "Connected", "StandAlone")
}

// Invalidate records the request.
func (b *Backend) Invalidate(ctx context.Context, res string, r apiv1.InvalidateRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbInvalidate, res, r, "UpToDate", "Inconsistent")
}

// Set records the request.
func (b *Backend) Set(ctx context.Context, res string, r apiv1.SetRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbSet, res, r, "suspend", "error")
}

// SplitBrain records the request.
func (b *Backend) SplitBrain(ctx context.Context, res string, r apiv1.SplitBrainRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbSplitBrain, res, r, "keeping", "undone")
}

// Attach records the request.
func (b *Backend) Attach(ctx context.Context, res string, r apiv1.AttachRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbAttach, res, r, "Failed", "Inconsistent")
}

// Resize records the request.
func (b *Backend) Resize(ctx context.Context, res string, r apiv1.ResizeRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbResize, res, r, "1073741824", "2147483648")
}

// PauseSync records the request.
func (b *Backend) PauseSync(ctx context.Context, res string, r apiv1.SyncRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbPauseSync, res, r, "SyncSource", "PausedSyncS")
}

// Verify records the request.
func (b *Backend) Verify(ctx context.Context, res string, r apiv1.VerifyRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbVerify, res, r, "none", "running")
}

// ResumeSync records the request.
func (b *Backend) ResumeSync(ctx context.Context, res string, r apiv1.SyncRequest) (apiv1.Changed, error) {
	return b.change(ctx, apiv1.VerbResumeSync, res, r, "PausedSyncS", "SyncSource")
}

// Maintenance records the request.
func (b *Backend) Maintenance(ctx context.Context, r apiv1.MaintenanceRequest) (apiv1.Changed, error) {
	word := map[bool]string{true: "on", false: "off"}
	return b.change(ctx, "maintenance", "", r, word[!r.On], word[r.On])
}

// Standby records the request.
func (b *Backend) Standby(ctx context.Context, r apiv1.StandbyRequest) (apiv1.Changed, error) {
	word := map[bool]string{true: "standby", false: "online"}
	return b.change(ctx, "standby", "", r, word[!r.On], word[r.On])
}

// Fence records the request.
func (b *Backend) Fence(ctx context.Context, r apiv1.FenceRequest) (apiv1.Changed, error) {
	return b.change(ctx, "fence", "", r, "running", "off")
}

// FenceConfirm records the request.
func (b *Backend) FenceConfirm(ctx context.Context, r apiv1.FenceConfirmRequest) (apiv1.Changed, error) {
	return b.change(ctx, "fence-confirm", "", r, "waiting", "confirmed")
}

// CreateMetadata records the request.
func (b *Backend) CreateMetadata(ctx context.Context, res string, r apiv1.CreateMetadataRequest) (apiv1.CreatedMetadata, error) {
	if _, err := b.change(ctx, apiv1.VerbCreateMetadata, res, r, "", ""); err != nil {
		return apiv1.CreatedMetadata{}, err
	}
	return apiv1.CreatedMetadata{Volumes: []apiv1.MetadataInfo{{Disk: "/dev/vg0/pg", Metadata: "internal", UsableBytes: 1 << 30, MetadataBytes: 1 << 20}}}, nil
}

// Sample is a healthy pair as its Primary sees it, at a fixed time.
func Sample() apiv1.Status {
	at := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	path := func(name, ip string) apiv1.Path {
		return apiv1.Path{Name: name, Address: ip, State: apiv1.MemberAlive, RTTUS: 84, Carrier: apiv1.CarrierUp, Streams: &apiv1.Streams{Use: apiv1.PathGood,
			Because: "frames of full size come back", SinceS: 86400, RoundTripUS: 120, Live: 4, BytesOut: 20 << 30, BytesIn: 1 << 20, Retransmits: 3}}
	}
	return apiv1.Status{
		Node: "alpha", Cluster: "shop", Version: "1.0.0", Time: at, UptimeS: 3*86400 + 7200, Arbitration: "witness",
		Quorum: apiv1.Quorum{Voters: 3, Reachable: 3, Leader: "alpha", Incarnation: 1, HasQuorum: true},
		Members: []apiv1.Member{
			{Name: "alpha", Kind: apiv1.KindData, State: apiv1.MemberAlive, Self: true, UptimeS: 3*86400 + 7200, Version: "1.0.0"},
			{Name: "beta", Kind: apiv1.KindData, State: apiv1.MemberAlive, UptimeS: 86400, Version: "1.0.0", Paths: []apiv1.Path{path("crossover", "10.99.0.2"), path("lan", "192.168.1.12")}},
			{Name: "gamma", Kind: apiv1.KindWitness, State: apiv1.MemberAlive, UptimeS: 40 * 86400, Version: "1.0.0", Paths: []apiv1.Path{path("lan", "192.168.1.13")}},
		},
		Resources: []apiv1.Resource{{
			Name: "pg", Token: 12, Primary: "alpha", InSync: []string{"alpha", "beta"}, Role: "Primary", DiskState: "UpToDate",
			Protocol: "C", Arbitration: "witness", LeaseMS: 412, SinceS: 3 * 86400,
			Volumes: []apiv1.Volume{{
				SizeBytes: 100 << 30, Device: "/dev/hapair/pg/0", Disk: "/dev/vg0/pg", Frontend: "fuse", DiskState: "UpToDate",
				Counters: apiv1.Counters{WritesPerS: 12400, WriteBytesPerS: 48e6, WriteP50US: 95, WriteP99US: 210, WritesTotal: 5_000_000, WriteBytesTotal: 20 << 30},
			}},
			Peers: []apiv1.Peer{{Node: "beta", Role: "Secondary", DiskState: "UpToDate", Connection: "Connected", Replication: "Established", Path: "crossover"}},
			Services: []apiv1.Service{
				{Name: "/srv/pg", Kind: "mount", State: apiv1.ServiceRunning, Since: at.Add(-3 * 24 * time.Hour)},
				{Name: "postgresql.service", Kind: "systemd", State: apiv1.ServiceRunning, Since: at.Add(-3 * 24 * time.Hour)},
				{Name: "192.168.1.50/24", Kind: "address", State: apiv1.ServiceRunning, Since: at.Add(-3 * 24 * time.Hour)},
			},
		}},
	}
}

// LedgerBegin records the request.
func (b *Backend) LedgerBegin(ctx context.Context, r apiv1.LedgerBeginRequest) (apiv1.Changed, error) {
	return b.change(ctx, "ledger-begin", "", r, "blank", "follower")
}

// Replace records the request.
func (b *Backend) Replace(ctx context.Context, r apiv1.ReplaceRequest) (apiv1.Changed, error) {
	return b.change(ctx, "replace", "", r, "beta", "nobody")
}

// ConfigApply records the request.
func (b *Backend) ConfigApply(ctx context.Context, r apiv1.ConfigApplyRequest) (apiv1.Changed, error) {
	return b.change(ctx, "config apply", "", r, "gamma lan 192.168.1.13", "gamma lan 192.168.1.14")
}
