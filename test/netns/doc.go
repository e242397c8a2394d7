// Package netns tests whole pairs: agents, mirror, ledger, services and
// addresses, each node in namespaces of its own on this machine. Power is cut,
// cables pulled, agents paused and killed; every time each record that was
// answered must be there, and both copies must be the same in the end.
//
// Nothing here asserts how long something takes, but for one bound that is a
// promise: what is asked of a Primary after its lease has run out is not
// answered.
//
// TestHistory judges every answer, of reads too; the tests named TestApp run real
// applications, when HAPAIR_APPS is set, and HAPAIR_KILLS says how often the
// Primary loses its power under each.
//
// HAPAIR_FAILOVERS sets how many failovers TestFailovers makes in a row, and
// HAPAIR_LONG=1 adds what takes long. HAPAIR_KEEP=DIR keeps the agents' logs of
// failed tests. The tests need root and bin/haagent-lab, bin/hactl, bin/halab.
package netns
