package apiv1

// Name is the version of the API, as the routes begin.
const Name = "v1"

// The routes. {name} stands for a resource.
const (
	PathStatus  = "/v1/status"
	PathVersion = "/v1/version"
	PathEvents  = "/v1/events" // ?since=N: after event N; without: from now on

	// ?resource=, &node=, &since=, &until= (RFC 3339); all may be left out.
	PathTimeline = "/v1/timeline"

	PathMaintenance = "/v1/maintenance"
	PathStandby     = "/v1/standby"
	PathLedgerBegin = "/v1/ledger-begin"
	PathReplace     = "/v1/replace"
	PathConfigApply = "/v1/config/apply"

	PathFence        = "/v1/fence"
	PathFenceConfirm = "/v1/fence-confirm"

	PathResources = "/v1/resources/" // {name}/{verb}
	PathMetrics   = "/metrics"
)

// The verbs of a resource: POST /v1/resources/{name}/{verb}, except explain,
// which is GET.
const (
	VerbExplain        = "explain"
	VerbPromote        = "promote"
	VerbDemote         = "demote"
	VerbSwitchover     = "switchover"
	VerbConnect        = "connect"
	VerbDisconnect     = "disconnect"
	VerbInvalidate     = "invalidate"
	VerbPauseSync      = "pause-sync"
	VerbResumeSync     = "resume-sync"
	VerbVerify         = "verify"
	VerbCreateMetadata = "create-metadata"
	VerbAttach         = "attach"
	VerbSet            = "set"
	VerbResize         = "resize"
	VerbSplitBrain     = "split-brain"
	VerbCleanup        = "cleanup"
	VerbDrill          = "drill"
)

// NotBuilt lists what is described but answers not_implemented, with what to
// use instead.
var NotBuilt = map[string]string{
	"detach":   "stop the agent on this node: hactl standby NODE, then systemctl stop hapair",
	"snapshot": "use snapshots of the layer below or above the volume (LVM, btrfs)",
	"top":      "hactl status --watch",
	"doctor":   "hactl status and hactl explain RES",
}
