// Command haagent is the node daemon of hapair: it mirrors the volumes of its
// resources to the other node, keeps watch over it, and brings device,
// services and address up where they belong. With --witness it is the third
// voter and nothing else.
//
// This package wires the rooms. run.go starts and stops them in a numbered
// order; bind_*.go fills what each room declares in its needs; backend.go is
// what the control socket offers.
package main
