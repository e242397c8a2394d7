// Package spec is what a virtual machine of test/vm is told, and where things are
// in it.
package spec

// Files in a machine.
const (
	File        = "/etc/guest.json"
	ModuleDir   = "/lib/modules"
	LogFile     = "/run/agent.log"
	AgentSocket = "/run/hapair/agent.sock"
	// Ended begins the line that says how a command ended.
	Ended = "\x00ended: "
)

// Guest is one machine.
type Guest struct {
	Name      string
	Modules   []string          // file names in ModuleDir, in their order
	State     string            // device of /var/lib/hapair; "" for none
	Addresses map[string]string // with prefix length, by hardware address
	Agent     []string
	Env       []string
}
