# Tidepool's image as a snapshot of Hetzner Cloud, made by the very scripts that `tidepool image build` runs.
#
#   packer build -var agent=... -var openclaw_reference=REPOSITORY@sha256:... .
#
# The snapshot is not `promoted`: servers are made from it after `tidepool image verify` and `tidepool image promote`.

variable "hcloud_token" {
  type      = string
  default   = env("HCLOUD_TOKEN")
  sensitive = true
}

# Of the deployment: the `env` of `[cloud.hetzner]`.
variable "env" {
  type    = string
  default = "production"
}

variable "endpoint" {
  type    = string
  default = "https://api.hetzner.cloud/v1"
}

variable "location" {
  type    = string
  default = "nbg1"
}

# The smallest disk that servers will have: a snapshot fits no smaller one.
variable "server_type" {
  type    = string
  default = "cx23"
}

variable "agent" {
  type        = string
  description = "The agent's program."
}

variable "openclaw_version" {
  type    = string
  default = "2026.9.6"
}

variable "openclaw_reference" {
  type        = string
  default     = ""
  description = "Where Docker pulls OpenClaw from: REPOSITORY@sha256:..."
}

# Only for images without OpenClaw: `none`.
variable "openclaw" {
  type    = string
  default = ""
}

variable "inputs" {
  type        = string
  default     = "packer"
  description = "A name for what the image is made from."
}

variable "release_keys" {
  type        = string
  default     = ""
  description = "Public keys (`tidepool artefact keygen`), separated by spaces: whose agents servers take later."
}

variable "poll_interval" {
  type    = string
  default = "1s"
}

source "hcloud" "tidepool" {
  token         = var.hcloud_token
  endpoint      = var.endpoint
  poll_interval = var.poll_interval
  image         = "debian-12"
  location      = var.location
  server_type   = var.server_type
  server_name   = "tidepool-image-${formatdate("YYYYMMDDhhmmss", timestamp())}"
  ssh_username  = "root"
  snapshot_name = "tidepool ${var.openclaw_version} ${var.inputs}"
  snapshot_labels = {
    "managed-by" = "tidepool"
    "env"        = var.env
    "role"       = "tidepool-image"
    "openclaw"   = var.openclaw_version
    "inputs"     = var.inputs
  }
}

build {
  sources = ["source.hcloud.tidepool"]

  provisioner "file" {
    source      = "${path.root}/../../snapshot-image"
    destination = "/root"
  }

  provisioner "file" {
    source      = var.agent
    destination = "/root/tidepool-agent"
  }

  # One shell for all of it: after it nobody can log in any more.
  provisioner "shell" {
    environment_vars = [
      "TIDEPOOL_AGENT=/root/tidepool-agent",
      "TIDEPOOL_OPENCLAW=${var.openclaw}",
      "TIDEPOOL_OPENCLAW_REFERENCE=${var.openclaw_reference}",
      "TIDEPOOL_OPENCLAW_VERSION=${var.openclaw_version}",
      "TIDEPOOL_RELEASE_KEYS=${var.release_keys}",
      "TIDEPOOL_INPUTS=${var.inputs}",
    ]
    inline_shebang = "/bin/sh -eu"
    # It removes itself and its scripts, so it is in memory as a whole, and Packer is not to look for it afterwards.
    skip_clean = true
    inline = [
      "command -v cloud-init >/dev/null && cloud-init status --wait >/dev/null || true",
      "chmod 755 /root/tidepool-agent",
      "/root/snapshot-image/provision.sh",
      "mv /root/snapshot-image/cleanup.sh /root/snapshot-image/verify.sh /run/",
      "rm -rf /root/snapshot-image /root/tidepool-agent /tmp/script_*.sh",
      "/run/cleanup.sh",
      "/run/verify.sh",
    ]
  }
}
