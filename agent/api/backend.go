package api

import (
	"context"

	"hapair/agent/apiv1"
)

// Backend is what the server needs of the agent. All methods are safe for
// concurrent use. An error that is or wraps an *apiv1.Problem reaches the
// caller as it is; any other becomes code internal (or timeout, when the
// context ended). An unknown resource is a Problem of code not_found.
type Backend interface {
	Viewer
	RoleChanger
	LinkChanger
	ClusterChanger
}

// Viewer answers questions and changes nothing.
type Viewer interface {
	// Status must not block on disks or on the network.
	Status(ctx context.Context) (apiv1.Status, error)
	Explain(ctx context.Context, resource string) (apiv1.Explanation, error)
	// Subscribe streams events; [Hub] has it.
	Subscribe(since uint64) *Subscription
	// Timeline tells what all nodes recorded, from memory.
	Timeline(ctx context.Context, q apiv1.TimelineQuery) (apiv1.Timeline, error)
}

// RoleChanger moves the Primary.
type RoleChanger interface {
	Promote(ctx context.Context, resource string, r apiv1.PromoteRequest) (apiv1.Changed, error)
	Demote(ctx context.Context, resource string, r apiv1.DemoteRequest) (apiv1.Changed, error)
	Switchover(ctx context.Context, resource string, r apiv1.SwitchoverRequest) (apiv1.Changed, error)
	Cleanup(ctx context.Context, resource string, r apiv1.CleanupRequest) (apiv1.Changed, error)
}

// LinkChanger acts on the mirror link and on what flows over it.
type LinkChanger interface {
	Connect(ctx context.Context, resource string, r apiv1.ConnectRequest) (apiv1.Changed, error)
	Disconnect(ctx context.Context, resource string, r apiv1.DisconnectRequest) (apiv1.Changed, error)
	Invalidate(ctx context.Context, resource string, r apiv1.InvalidateRequest) (apiv1.Changed, error)
	PauseSync(ctx context.Context, resource string, r apiv1.SyncRequest) (apiv1.Changed, error)
	Attach(ctx context.Context, resource string, r apiv1.AttachRequest) (apiv1.Changed, error)
	SplitBrain(ctx context.Context, resource string, r apiv1.SplitBrainRequest) (apiv1.Changed, error)
	Set(ctx context.Context, resource string, r apiv1.SetRequest) (apiv1.Changed, error)
	// Drill goes on when ctx ends.
	Drill(ctx context.Context, resource string, r apiv1.DrillRequest) (apiv1.DrillReport, error)
	Resize(ctx context.Context, resource string, r apiv1.ResizeRequest) (apiv1.Changed, error)
	Verify(ctx context.Context, resource string, r apiv1.VerifyRequest) (apiv1.Changed, error)
	ResumeSync(ctx context.Context, resource string, r apiv1.SyncRequest) (apiv1.Changed, error)
}

// ClusterChanger acts on the cluster, and on disks that are not attached.
type ClusterChanger interface {
	Maintenance(ctx context.Context, r apiv1.MaintenanceRequest) (apiv1.Changed, error)
	Standby(ctx context.Context, r apiv1.StandbyRequest) (apiv1.Changed, error)
	Fence(ctx context.Context, r apiv1.FenceRequest) (apiv1.Changed, error)
	FenceConfirm(ctx context.Context, r apiv1.FenceConfirmRequest) (apiv1.Changed, error)
	LedgerBegin(ctx context.Context, r apiv1.LedgerBeginRequest) (apiv1.Changed, error)
	Replace(ctx context.Context, r apiv1.ReplaceRequest) (apiv1.Changed, error)
	ConfigApply(ctx context.Context, r apiv1.ConfigApplyRequest) (apiv1.Changed, error)
	CreateMetadata(ctx context.Context, resource string, r apiv1.CreateMetadataRequest) (apiv1.CreatedMetadata, error)
}
