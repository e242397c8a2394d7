package vm

import (
	"fmt"

	"hapair/test/lab"
	"hapair/test/lab/record"
	"hapair/test/script"
)

// modules are what the machines need beside what all of them do.
func (l *Lab) modules() []string {
	if l.Watchdog == 0 {
		return l.Modules
	}
	return append([]string{"softdog"}, l.Modules...)
}

// sharedDevice is the disk with pills, as a data node sees it.
const sharedDevice = "/dev/vdd"

// configuration is that of every node.
func (l *Lab) configuration() string {
	text := common
	if l.fencing() {
		text += "arbitration: fencing\nfencing:\n"
		for _, name := range []string{script.Alpha, script.Beta} {
			text += fmt.Sprintf("  %s: [{%s, monitor_interval: 5s}]\n", name, l.device(name))
		}
	} else {
		text += "witness: {name: gamma, address: 192.168.1.13}\narbitration: witness\n"
	}
	if l.Watchdog != 0 {
		text += fmt.Sprintf("watchdog: {device: /dev/watchdog, timeout: %s}\n", l.Watchdog)
	}
	return text
}

// device is what a node is fenced by, as the start of a YAML flow mapping. The agent gives
// an answer half the time that two attempts have.
func (l *Lab) device(node string) string {
	if l.Pills {
		return "sbd: " + sharedDevice
	}
	return fmt.Sprintf("agent: %s, timeout: 12s, options: {ip: %s, ipport: %s, plug: %s, password_file: %s, power_timeout: 4}", fenceProgram, outletsHost, l.outlets.port, node, outletsFile)
}

// common is what every lab has. Leases are longer than by default: these machines are
// slow, and share the processors.
const common = `cluster: vmlab
nodes:
  alpha: {addresses: {crossover: 10.99.0.1, lan: 192.168.1.11}}
  beta:  {addresses: {crossover: 10.99.0.2, lan: 192.168.1.12}}
security:
  mode: psk
  psk_file: /etc/hapair/cluster.psk
  gossip_key_file: /etc/hapair/gossip.key
timing: {probe: 2s, heartbeat: 1s, link: 6s, lease: 8s, renew: 1600ms, grace: 9600ms}
api: {read_group: root}
resources:
  pg:
    volumes: [{disk: /dev/vda, metadata: /dev/vdb}]
    frontend: auto
    disk_timeout: 12s
    peer_timeout: 16s
    services:
      - mount: {path: /srv/pg, type: ext4}
      - {name: records, exec: {start: [/bin/halab, recordd, start], stop: [/bin/halab, recordd, stop], status: [/bin/halab, recordd, status]}}
      - address: {ip: ` + lab.ServiceAddress + `/24, dev: eth0}
`

var serviceAddress = fmt.Sprintf("%s:%d", lab.ServiceAddress, record.DefaultPort)
