// Package model holds the protocol's models in Promela, and the script that
// has spin search them: pair.pml for a pair with a witness, alone.pml for one of
// two voters, third.pml for the last of three.
package model
