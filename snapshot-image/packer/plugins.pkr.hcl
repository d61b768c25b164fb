# Packer from 1.7 on has no builders of its own and fetches this one (`packer init .`). Debian's 1.6.6 has it built
# in and refuses this block, so it is in a file of its own, which that version is not given.
packer {
  required_plugins {
    hcloud = {
      source  = "github.com/hetznercloud/hcloud"
      version = ">= 1.6"
    }
  }
}
