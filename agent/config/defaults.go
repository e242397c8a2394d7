package config

import (
	"time"

	"hapair/mirror/aftersplit"
)

// The defaults: what a file that does not say gets.
const (
	DefaultPath          = "/etc/hapair/hapair.yaml"
	DefaultCluster       = "hapair"
	DefaultResource      = "data" // the resource of the short form
	DefaultPathName      = "main" // the path of an address given without one
	DefaultPort          = 7790
	DefaultHeartbeatPort = 7791
	DefaultStateDir      = "/var/lib/hapair"
	DefaultRunDir        = "/run/hapair"
	DefaultDeviceDir     = "/dev/hapair"
	DefaultReadGroup     = "hapair"
	DefaultSecretsDir    = "/etc/hapair/secrets"

	DefaultCAFile        = DefaultSecretsDir + "/ca.pem"
	DefaultCertFile      = DefaultSecretsDir + "/node.pem"
	DefaultKeyFile       = DefaultSecretsDir + "/node.key"
	DefaultPSKFile       = DefaultSecretsDir + "/cluster.psk"
	DefaultGossipKeyFile = DefaultSecretsDir + "/gossip.key"

	DefaultProbe     = 200 * time.Millisecond
	DefaultHeartbeat = 200 * time.Millisecond
	DefaultLink      = 300 * time.Millisecond
	DefaultLease     = 500 * time.Millisecond
	DefaultRenew     = 100 * time.Millisecond
	DefaultGrace     = 560 * time.Millisecond

	DefaultStartTimeout    = 90 * time.Second
	DefaultStopTimeout     = 60 * time.Second
	DefaultMonitorTimeout  = 20 * time.Second
	DefaultMonitorInterval = 10 * time.Second

	DefaultFailureThreshold = 3
	DefaultFailureWindow    = 10 * time.Minute
	DefaultFailureMemory    = 10 * time.Minute
	DefaultFailbackAfter    = 5 * time.Minute

	DefaultFenceTimeout         = 20 * time.Second
	DefaultFenceMonitorInterval = time.Minute

	DefaultVerifyRate = Rate(20 << 20)

	DefaultCongestionFill = Size(4 << 20)

	DefaultPeerTimeout = 20 * time.Second
	DefaultDiskTimeout = 30 * time.Second
)

// The bounds. What lies outside is refused with the bound in the message.
const (
	MaxFileBytes    = 1 << 20 // a configuration file
	MaxDataNodes    = 2
	MaxPaths        = 4
	MaxResources    = 64
	MaxVolumes      = 16 // per resource
	MaxServices     = 64 // per resource
	MaxFenceDevices = 8  // per node
	MinFenceTimeout = time.Second
	MaxFenceTimeout = 10 * time.Minute // also of a delay
	MinFenceMonitor = time.Second
	MaxFenceMonitor = 24 * time.Hour
	MaxNameBytes    = 63
	MinVolumeBytes  = 1 << 20
	MaxVolumeBytes  = 1 << 50     // 1 PiB
	MinPatience     = time.Second // with a disk or a peer
	MaxPatience     = time.Hour
	MinFailback     = 10 * time.Second
	MaxFailback     = 24 * time.Hour
	MinVerifyEvery  = time.Hour
	MaxVerifyEvery  = 366 * 24 * time.Hour
	MinVerifyRate   = Rate(1 << 20)

	MinCongestionFill = Size(64 << 10)
	MaxCongestionFill = Size(64 << 20) // half of what the link queues
)

// The bounds of the timing section. Below 100 ms a heartbeat fails over by
// itself on a loaded machine (measured).
const (
	MinHeartbeat = 100 * time.Millisecond
	MaxHeartbeat = time.Second // a leader whose disk stalls that long lets another lead
	MinProbe     = 20 * time.Millisecond
	MaxProbe     = 10 * time.Second
	MaxTiming    = 60 * time.Second
)

// defaulter is a part of the file that starts from its defaults.
type defaulter interface{ setDefaults() }

func (c *Config) setDefaults() {
	c.Cluster = DefaultCluster
	c.Port, c.HeartbeatPort = DefaultPort, DefaultHeartbeatPort
	c.StateDir, c.RunDir, c.DeviceDir = DefaultStateDir, DefaultRunDir, DefaultDeviceDir
}

func (s *Security) setDefaults() {
	*s = Security{
		Mode: SecurityTLS, CAFile: DefaultCAFile, CertFile: DefaultCertFile,
		KeyFile: DefaultKeyFile, PSKFile: DefaultPSKFile, GossipKeyFile: DefaultGossipKeyFile,
	}
}

func (t *Timing) setDefaults() {
	*t = Timing{
		Probe:     DefaultProbe,
		Heartbeat: DefaultHeartbeat, Link: DefaultLink,
		Lease: DefaultLease, Renew: DefaultRenew, Grace: DefaultGrace,
	}
}

func (a *API) setDefaults() { a.ReadGroup = DefaultReadGroup }

func (r *Resource) setDefaults() {
	r.Frontend, r.Protocol, r.Paths = FrontendAuto, ProtocolC, PathsOne
	r.AutoPromote, r.OnNoQuorum, r.OnIOError = true, SuspendIO, DetachOnError
	r.SplitBrainKeep = KeepAll
	r.DiskTimeout, r.PeerTimeout = DefaultDiskTimeout, DefaultPeerTimeout
	r.FailbackAfter = DefaultFailbackAfter
	r.Failures.setDefaults()
	r.Congestion.setDefaults()
}

func (f *Failures) setDefaults() {
	*f = Failures{Threshold: DefaultFailureThreshold, Within: DefaultFailureWindow, Forget: DefaultFailureMemory}
}

func (c *Congestion) setDefaults() { c.Fill, c.Action = DefaultCongestionFill, CongestionBlock }

func (a *AfterSplitBrain) setDefaults() {
	a.NoPrimary, a.OnePrimary, a.TwoPrimaries = aftersplit.Disconnect, aftersplit.Disconnect, aftersplit.Disconnect
}

func (v *Verify) setDefaults() { v.Rate = DefaultVerifyRate }

func (v *Volume) setDefaults() { v.Metadata.All = Internal }

func (s *Service) setDefaults() {
	s.StartTimeout, s.StopTimeout = DefaultStartTimeout, DefaultStopTimeout
	s.MonitorTimeout, s.MonitorInterval = DefaultMonitorTimeout, DefaultMonitorInterval
}

func (a *AddressService) setDefaults() {
	a.Announce, a.VirtualMAC, a.SourceFor = true, VirtualMACOff, SourceForOff
}

func (d *FenceDevice) setDefaults() {
	d.Timeout, d.MonitorInterval = DefaultFenceTimeout, DefaultFenceMonitorInterval
}
