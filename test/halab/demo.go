package main

import "github.com/spf13/cobra"

func demoCommand(*string) *cobra.Command { return &cobra.Command{Use: "demo", Hidden: true} }
